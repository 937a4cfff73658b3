//! `sluicegate key`: makes an API key, and the entry of `keys` that knows it by its hash alone.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use sha2::{Digest, Sha256};

use crate::admission::LONGEST_SECRET;
use crate::config;
use crate::import::quoted;

/// What OpenAI's begin with, which scanners of repositories look for.
const PREFIX: &str = "sk-";
/// Bytes from the operating system's generator: 256 bits.
const RANDOM: usize = 32;

/// What `sluicegate key` is asked for.
#[derive(Debug, Args)]
pub struct Key {
    /// The name for logs, metrics and limits [default: key- and the first digits of its hash]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Read a key from standard input in place of making one, and print its SHA-256 alone
    #[arg(long, conflicts_with = "name")]
    hash: bool,
}

impl Key {
    /// Prints the key on a line and its entry on the next, or the hash of the one that is read. Exit status 0, or 1
    /// and the reason on stderr.
    pub fn run(self) -> ExitCode {
        let text = if self.hash {
            read(io::stdin().lock()).map(|secret| format!("{}\n", hash(&secret)))
        } else {
            self.make()
        };
        let printed = text.and_then(|text| {
            let mut out = io::stdout().lock();
            (out.write_all(text.as_bytes()))
                .and_then(|()| out.flush())
                .map_err(|e| format!("cannot print the key: {e}"))
        });
        match printed {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::FAILURE
            }
        }
    }

    fn make(self) -> Result<String, String> {
        if let Some(name) = &self.name {
            config::check_key_name(name).map_err(|what| format!("--name {what}"))?;
        }
        let mut random = [0; RANDOM];
        getrandom::fill(&mut random)
            .map_err(|e| format!("the operating system gives no random bytes: {e}"))?;
        Ok(lines(&random, self.name))
    }
}

/// The key of these bytes, and its entry.
fn lines(random: &[u8; RANDOM], name: Option<String>) -> String {
    let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = hash(secret.as_bytes());
    let name = name.unwrap_or_else(|| format!("key-{}", &hash[..8]));
    let name = quoted(&name);
    format!("{secret}\n- {{ name: {name}, sha256: {hash} }}\n")
}

fn hash(secret: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    (Sha256::digest(secret).iter())
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}

/// A key on a line of its own. Only one that a client can send, and the gateway would take.
fn read(input: impl Read) -> Result<Vec<u8>, String> {
    let mut secret = Vec::new();
    // Room for the end of the line, and for a byte that is too many.
    let room = LONGEST_SECRET as u64 + 3;
    (input.take(room).read_to_end(&mut secret))
        .map_err(|e| format!("cannot read the key from standard input: {e}"))?;
    if secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
    if secret.is_empty() {
        Err("standard input holds no key".to_owned())
    } else if secret.len() > LONGEST_SECRET {
        Err(format!("the key is longer than {LONGEST_SECRET} bytes"))
    } else if secret.iter().all(u8::is_ascii_graphic) {
        Ok(secret)
    } else {
        Err("the key has a space, a line break or another character that cannot be sent in a header".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_key_is_what_clients_know_and_its_entry_has_its_hash() {
        let made = lines(&[0xff; RANDOM], Some("team-a".to_owned()));
        let (secret, entry) = made.split_once('\n').unwrap();
        assert_eq!(secret, "sk-__________________________________________8");
        assert_eq!(secret.len(), 46);
        let digest = hash(secret.as_bytes());
        assert_eq!(entry, format!("- {{ name: team-a, sha256: {digest} }}\n"));
        // FIPS 180-4's own example.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(b"abc"), abc);
    }

    #[test]
    fn every_entry_is_one_that_the_configuration_takes() {
        for name in [
            None,
            Some("team a"),
            Some("true"),
            Some("12"),
            Some("${HOME}"),
            Some("a: b, c }"),
            Some("\"quoted\" \\ # {"),
            Some("équipe 7"),
            Some("- x"),
        ] {
            let name = name.map(str::to_owned);
            let made = lines(&[7; RANDOM], name.clone());
            let (secret, entry) = made.split_once('\n').unwrap();
            let file = format!("listen: 8080\nendpoints: [node0:8000]\nkeys:\n  {entry}");
            let config = config::parse_str(&file, "keys.yaml", Path::new(""), &|_| None).unwrap();
            let key = &config.keys.unwrap()[0];
            assert_eq!(key.hash, <[u8; 32]>::from(Sha256::digest(secret)));
            match name {
                Some(name) => assert_eq!(*key.name, name),
                None => assert_eq!(*key.name, format!("key-{}", &hash(secret.as_bytes())[..8])),
            }
        }
    }

    #[test]
    fn only_a_key_that_could_be_sent_is_read() {
        for input in ["sk-1", "sk-1\n", "sk-1\r\n"] {
            assert_eq!(read(input.as_bytes()).unwrap(), b"sk-1");
        }
        let longest = "k".repeat(LONGEST_SECRET);
        assert_eq!(
            read(format!("{longest}\r\n").as_bytes()).unwrap(),
            longest.as_bytes()
        );
        for (input, problem) in [
            ("", "no key"),
            ("\r\n", "no key"),
            ("sk-1\n\n", "line break"),
            ("sk 1", "space"),
            ("sk-ü", "cannot be sent"),
            (&format!("{longest}k"), "longer than 4096"),
            (&"k".repeat(1 << 20), "longer than 4096"),
        ] {
            assert!(
                read(input.as_bytes()).unwrap_err().contains(problem),
                "{input}"
            );
        }
    }
}
