//! Secrets that anybody can guess.

use std::collections::HashSet;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// SHA-256 of a secret.
pub(super) type Hash = [u8; 32];

/// In bytes; 16 random ones of base64 are 96 bits.
const SHORTEST: usize = 16;
/// Different bytes in a secret that is no repetition.
const FEWEST_BYTES: usize = 6;

/// What stands in the documents of gateways, engines and SDKs, and what people write for the time
/// being. In lower case.
const PUBLISHED: &[&str] = &[
    "sk-1234",
    "sk-123",
    "sk-12345",
    "sk-123456",
    "sk-12345678",
    "sk-123456789",
    "sk-1234567890",
    "sk-1234567890abcdef",
    "sk-0000",
    "sk-xxx",
    "sk-xxxx",
    "sk-xxxxx",
    "sk-xxxxxxxx",
    "sk-...",
    "sk-no-key-required",
    "sk-no-key",
    "sk-fake",
    "sk-fake-key",
    "sk-dummy",
    "sk-test",
    "sk-test-key",
    "sk-local",
    "sk-master",
    "sk-master-key",
    "sk-litellm",
    "sk-litellm-master-key",
    "sk-your-key",
    "sk-your-key-here",
    "sk-your-api-key",
    "sk-your-master-key",
    "sk-my-key",
    "sk-my-secret-key",
    "sk-secret",
    "sk-anything",
    "sk-proj-1234",
    "sk-ant-1234",
    "token-abc123",
    "abc123",
    "empty",
    "none",
    "null",
    "nil",
    "no-key",
    "no-key-required",
    "no-key-needed",
    "not-needed",
    "not-required",
    "not-used",
    "unused",
    "anything",
    "dummy",
    "dummy-key",
    "dummy_key",
    "dummy-api-key",
    "fake",
    "fake-key",
    "fake-api-key",
    "placeholder",
    "example",
    "example-key",
    "demo",
    "demo-key",
    "default",
    "changeme",
    "change-me",
    "change_me",
    "changeit",
    "replace-me",
    "replace_me",
    "test",
    "test123",
    "testing",
    "test-key",
    "test_key",
    "test-api-key",
    "key",
    "mykey",
    "my-key",
    "my_key",
    "my-api-key",
    "my_api_key",
    "my-secret-key",
    "my-super-secret-key",
    "your-key",
    "your-key-here",
    "your_key_here",
    "your-api-key",
    "your_api_key",
    "your-api-key-here",
    "your_api_key_here",
    "your-master-key",
    "your-secret-key",
    "your_secret_key",
    "api-key",
    "api_key",
    "apikey",
    "api-key-here",
    "secret",
    "secret-key",
    "secretkey",
    "super-secret",
    "supersecret",
    "super-secret-key",
    "master",
    "master-key",
    "master_key",
    "admin",
    "root",
    "password",
    "password123",
    "passw0rd",
    "pass",
    "letmein",
    "qwerty",
    "1",
    "123",
    "1234",
    "12345",
    "123456",
    "12345678",
    "123456789",
    "1234567890",
    "0000",
    "xxx",
    "xxxx",
    "foo",
    "bar",
    "foobar",
    "hello",
    "lm-studio",
    "lmstudio",
    "ollama",
    "vllm",
    "sglang",
    "llama",
    "litellm",
    "localai",
    "openai",
    "openai_api_key",
    "sluicegate",
];

/// Why `secret` should not be used; follows its name in a message.
pub(super) fn of_secret(secret: &str) -> Option<&'static str> {
    if PUBLISHED.contains(&secret.to_lowercase().as_str()) {
        return Some(KNOWN);
    }
    if secret.len() < SHORTEST {
        return Some("is shorter than 16 characters, which can be guessed");
    }
    let bytes: HashSet<u8> = secret.bytes().collect();
    (bytes.len() < FEWEST_BYTES).then_some("repeats the same few characters, which can be guessed")
}

/// The same of a secret of which only the hash is known.
pub(super) fn of_hash(hash: &Hash) -> Option<&'static str> {
    static HASHES: LazyLock<HashSet<Hash>> = LazyLock::new(|| {
        let spellings = |text: &&str| [(*text).to_owned(), text.to_uppercase(), capital(text)];
        (PUBLISHED.iter().flat_map(spellings))
            .map(|text| self::hash(&text))
            .collect()
    });
    HASHES.contains(hash).then_some(KNOWN)
}

const KNOWN: &str = "is a key that documents show and people try first";

pub(super) fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    (chars.next().into_iter())
        .flat_map(char::to_uppercase)
        .chain(chars)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_keys_are_known_in_clear_and_by_their_hash() {
        for secret in [
            "sk-1234",
            "EMPTY",
            "token-abc123",
            "changeme",
            "Test",
            "None",
        ] {
            assert_eq!(of_secret(secret), Some(KNOWN), "{secret}");
            assert_eq!(of_hash(&hash(secret)), Some(KNOWN), "{secret}");
        }
    }

    #[test]
    fn the_table_is_in_lower_case_and_has_nothing_twice() {
        let mut seen = HashSet::new();
        for text in PUBLISHED {
            assert!(seen.insert(text) && text.to_lowercase() == **text, "{text}");
        }
    }

    #[test]
    fn short_and_repeated_secrets_are_weak_and_random_ones_are_not() {
        assert!(of_secret("9f8e7d6c5b4a392").is_some());
        assert!(of_secret("9f8e7d6c5b4a3921").is_none());
        assert!(of_secret("abababababababababababab").is_some());
        assert!(of_hash(&hash("9f8e7d6c5b4a3921")).is_none());
    }
}
