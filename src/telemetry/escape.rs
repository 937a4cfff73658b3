//! Bytes from outside, made safe for a log: what leaves here is printable ASCII.

use std::io::Write;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends the inside of a JSON string. All that is not printable ASCII is escaped, for a log is
/// read in terminals too; a byte that is not UTF-8 becomes U+FFFD.
pub fn json(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.iter().all(|&byte| is_plain(byte)) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        chunk
            .valid()
            .chars()
            .for_each(|character| json_char(out, character));
        chunk
            .invalid()
            .iter()
            .for_each(|_| out.extend_from_slice(b"\\ufffd"));
    }
}

fn json_char(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        ' '..='~' => out.extend(u8::try_from(character)),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let [high, low] = unit.to_be_bytes();
                out.extend_from_slice(b"\\u");
                hex(out, high);
                hex(out, low);
            }
        }
    }
}

/// Appends as nginx's default `escape` does: `"`, `\`, controls and bytes above 126 as `\xHH`.
pub fn nginx(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        if is_plain(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(b"\\x");
            // nginx writes these digits in upper case.
            hex(out, byte);
            let digits = out.len() - 2;
            out[digits..].make_ascii_uppercase();
        }
    }
}

/// Appends a message of our own that may quote something from outside: only controls (the C1 ones
/// and line separators too) are escaped, so that one message is one line.
pub fn message(out: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
            // A Vec takes every write.
            let _ = write!(out, "{}", character.escape_default());
        } else {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn hex(out: &mut Vec<u8>, byte: u8) {
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(escape: fn(&mut Vec<u8>, &[u8]), bytes: &[u8]) -> String {
        let mut out = Vec::new();
        escape(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nginx_escapes_in_its_own_manner() {
        assert_eq!(
            with(nginx, b"a \"b\\\n\x7f\xc3\xa9"),
            r"a \x22b\x5C\x0A\x7F\xC3\xA9"
        );
    }

    #[test]
    fn json_is_ascii_and_invalid_bytes_are_replaced() {
        assert_eq!(
            with(json, "é🚀\u{9b}\n".as_bytes()),
            r"\u00e9\ud83d\ude80\u009b\n"
        );
        assert_eq!(with(json, b"a\xff\xc3z"), r"a\ufffd\ufffdz");
    }

    #[test]
    fn a_message_stays_one_line() {
        let mut out = Vec::new();
        message(&mut out, "é\n\u{1b}[31m\u{9b}\u{2028}");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "é\\n\\u{1b}[31m\\u{9b}\\u{2028}"
        );
    }

    proptest! {
        #[test]
        fn json_of_any_text_reads_back(text in any::<String>()) {
            let escaped = with(json, text.as_bytes());
            prop_assert!(escaped.bytes().all(|byte| (32..127).contains(&byte)));
            prop_assert_eq!(serde_json::from_str::<String>(&format!("\"{escaped}\"")).unwrap(), text);
        }

        #[test]
        fn any_bytes_become_printable_ascii(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for escape in [json as fn(&mut Vec<u8>, &[u8]), nginx] {
                let escaped = with(escape, &bytes);
                prop_assert!(escaped.bytes().all(|byte| (32..127).contains(&byte)));
                prop_assert!(!escaped.replace("\\\"", "").contains('"'));
            }
        }
    }
}
