//! No input breaks the importer, and no directive is lost in it.

use super::*;

/// Files that a mutation begins with.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = confs(FILES)
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    // Longer ones take longer, and hold nothing more.
    seeds.retain(|seed| seed.len() < 8 * 1024);
    seeds
}

/// Whatever the outcome, it is one that can be shown.
fn check(path: &Path) {
    match import(path, None) {
        Ok(imported) => {
            let read = config::parse_str(&imported.yaml, "", Path::new("/"), &|_| None);
            assert!(read.is_ok(), "{}", imported.yaml);
            assert!(imported.notes.iter().all(|note| is_one_line(note)));
        }
        Err(broken) => {
            assert!(!broken.lines.is_empty());
            assert!(
                broken.lines.iter().all(|line| is_one_line(line)),
                "{broken:?}"
            );
        }
    }
}

fn is_one_line(line: &str) -> bool {
    line.contains("nginx.conf") || line.starts_with("and ") && !line.contains(['\n', '\r', '\0'])
}

#[test]
fn random_bytes_and_mutated_files_get_an_answer() {
    let scratch = Scratch::new("mutated");
    let seeds = seeds();
    let words = [
        "{",
        "}",
        ";",
        "\"",
        "'",
        "\\",
        "$",
        "#",
        "\n",
        "\0",
        "include x;",
        "server",
        "0",
        "=",
        "listen [::]:80-90;",
        "{{{{",
    ];
    let mutation = (0_usize..1000, 0_usize..6, any::<u16>(), any::<u16>());
    let strategy = (
        0..seeds.len(),
        prop::collection::vec(mutation, 1..6),
        prop::collection::vec(any::<u8>(), 0..200),
    );
    proptest!(ProptestConfig::with_cases(256), |((seed, mutations, bytes) in strategy)| {
        check(&scratch.write("nginx.conf", &bytes));
        let mut text = seeds[seed].clone();
        for (word, kind, from, to) in mutations {
            if text.is_empty() {
                break;
            }
            let from = usize::from(from) % text.len();
            let to = from + usize::from(to) % 64;
            let to = to.min(text.len());
            match kind {
                0 => drop(text.drain(from..to)),
                1 => drop(text.splice(from..from, words[word % words.len()].bytes())),
                2 => text.truncate(from),
                3 => text[from] = (word % 256) as u8,
                4 => {
                    let twice = text[from..to].to_vec();
                    drop(text.splice(from..from, twice));
                }
                _ => text.swap(from, to.saturating_sub(1).max(from)),
            }
        }
        check(&scratch.write("nginx.conf", &text));
    });
}
