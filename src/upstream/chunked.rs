//! The chunked transfer coding (RFC 9112 §7.1), decoded strictly and without I/O.
//!
//! Everything between the payload is counted, checked and dropped: no byte of it is kept, so a
//! decoder is a few words however the input is cut.

use std::ops::Range;

/// Hex digits of a chunk size, leading zeros included. Fifteen hold 2^60 - 1 and cannot overflow.
const MAX_SIZE_DIGITS: u8 = 15;
/// Bytes of the extensions of one chunk. Nobody we know sends any.
const MAX_EXTENSION: u16 = 256;
/// Fields of a trailer section: as many as a head may have.
const MAX_TRAILER_FIELDS: usize = super::decoder::MAX_FIELDS;
/// Bytes of the whole trailer section.
const MAX_TRAILERS: u16 = 8 * 1024;

/// Decodes one chunked body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkDecoder {
    state: State,
    /// Size of the current chunk while its digits are read, then what is left of its payload.
    size: u64,
    /// Trailer fields so far.
    trailers: usize,
}

/// What [`ChunkDecoder::decode`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Payload, at this range of the input.
    Data(Range<usize>),
    /// The input is used up; the body is not over.
    More,
    /// The body is over. What follows is not part of it.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size {
        digits: u8,
    },
    Extension {
        seen: u16,
    },
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends the body.
    TrailerStart {
        seen: u16,
    },
    TrailerName {
        seen: u16,
    },
    TrailerValue {
        seen: u16,
    },
    TrailerLf {
        seen: u16,
    },
    EndLf,
    Done,
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkDecoder {
    pub fn new() -> Self {
        ChunkDecoder {
            state: State::Size { digits: 0 },
            size: 0,
            trailers: 0,
        }
    }

    /// Takes bytes from the front of `input`: how many, and what they were. Fails with the rule
    /// that was broken; the decoder must not be used after that.
    pub fn decode(&mut self, input: &[u8]) -> Result<(usize, Step), &'static str> {
        let mut at = 0;
        loop {
            if self.state == State::Done {
                return Ok((at, Step::End));
            }
            if at == input.len() {
                return Ok((at, Step::More));
            }
            if self.state == State::Data {
                let left = usize::try_from(self.size).unwrap_or(usize::MAX);
                let end = at + left.min(input.len() - at);
                self.size -= (end - at) as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                return Ok((end, Step::Data(at..end)));
            }
            at += match self.bare_framing(&input[at..]) {
                0 => {
                    self.state = self.frame_byte(input[at])?;
                    1
                }
                bare => bare,
            };
        }
    }

    /// Takes framing that is in one piece and without extensions, as nearly all is; it does not need a state
    /// for every byte. Returns how much there was.
    fn bare_framing(&mut self, input: &[u8]) -> usize {
        match self.state {
            State::DataCr if input.starts_with(b"\r\n") => {
                self.state = State::Size { digits: 0 };
                2
            }
            State::Size { digits: 0 } => match size_line(input) {
                Some((size, line)) => {
                    self.size = size;
                    self.state = State::Data;
                    line
                }
                None => 0,
            },
            _ => 0,
        }
    }

    /// The state after one byte of framing.
    fn frame_byte(&mut self, byte: u8) -> Result<State, &'static str> {
        Ok(match self.state {
            State::Size { digits } => match (byte, hex_value(byte)) {
                (_, Some(_)) if digits == MAX_SIZE_DIGITS => {
                    return Err("chunk size with too many digits");
                }
                (_, Some(value)) => {
                    self.size = (self.size << 4) | u64::from(value);
                    State::Size { digits: digits + 1 }
                }
                _ if digits == 0 => return Err("chunk size without digits"),
                (b'\r', _) => State::SizeLf,
                (b';', _) => State::Extension { seen: 0 },
                _ => return Err("chunk size with a byte that is no hex digit"),
            },
            State::Extension { seen } => match byte {
                b'\r' => State::SizeLf,
                _ if !is_text(byte) => return Err("control character in a chunk extension"),
                _ if seen == MAX_EXTENSION => return Err("chunk extension too long"),
                _ => State::Extension { seen: seen + 1 },
            },
            State::SizeLf => match byte {
                b'\n' if self.size == 0 => State::TrailerStart { seen: 0 },
                b'\n' => State::Data,
                _ => return Err("chunk size line not ended by CRLF"),
            },
            State::DataCr if byte == b'\r' => State::DataLf,
            State::DataLf if byte == b'\n' => State::Size { digits: 0 },
            State::DataCr | State::DataLf => return Err("chunk not ended by CRLF"),
            State::EndLf if byte == b'\n' => State::Done,
            State::EndLf => return Err("chunked body not ended by CRLF"),
            State::TrailerStart { .. } if byte == b'\r' => State::EndLf,
            State::TrailerStart { seen }
            | State::TrailerName { seen }
            | State::TrailerValue { seen }
            | State::TrailerLf { seen }
                if seen == MAX_TRAILERS =>
            {
                return Err("trailer section too long");
            }
            State::TrailerStart { seen } if is_token(byte) => {
                if self.trailers == MAX_TRAILER_FIELDS {
                    return Err("too many trailer fields");
                }
                self.trailers += 1;
                State::TrailerName { seen: seen + 1 }
            }
            State::TrailerName { seen } if byte == b':' => State::TrailerValue { seen: seen + 1 },
            State::TrailerName { seen } if is_token(byte) => State::TrailerName { seen: seen + 1 },
            State::TrailerStart { .. } | State::TrailerName { .. } => {
                return Err("trailer name that is not a token");
            }
            State::TrailerValue { seen } if byte == b'\r' => State::TrailerLf { seen: seen + 1 },
            State::TrailerValue { seen } if is_text(byte) => State::TrailerValue { seen: seen + 1 },
            State::TrailerValue { .. } => return Err("control character in a trailer"),
            State::TrailerLf { seen } if byte == b'\n' => State::TrailerStart { seen: seen + 1 },
            State::TrailerLf { .. } => return Err("trailer line not ended by CRLF"),
            // `decode` handles these two; they take no framing byte.
            State::Data | State::Done => return Err("byte outside the framing"),
        })
    }
}

/// The size of a chunk that is not the last, and the length of its line, where that is in one piece, bare and
/// short.
fn size_line(input: &[u8]) -> Option<(u64, usize)> {
    let mut size = 0;
    for (at, &byte) in input.iter().take(8).enumerate() {
        match hex_value(byte) {
            Some(value) => size = (size << 4) | u64::from(value),
            None if byte == b'\r' && size > 0 && input.get(at + 1) == Some(&b'\n') => {
                return Some((size, at + 2));
            }
            None => return None,
        }
    }
    None
}

fn hex_value(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// tchar (RFC 9110 §5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            let other = b"!#$%&'*+-.^_`|~";
            let mut at = 0;
            while at < other.len() {
                table[other[at] as usize] = true;
                at += 1;
            }
            table[byte] = table[byte] || (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        table
    };
    TOKEN[usize::from(byte)]
}

/// What a field's value may hold: tab, visible characters, spaces, obs-text (RFC 9110 §5.5).
pub(super) fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8]) -> Result<(Vec<u8>, usize, bool), &'static str> {
        let (mut decoder, mut payload, mut at) = (ChunkDecoder::new(), Vec::new(), 0);
        loop {
            let (used, step) = decoder.decode(&input[at..])?;
            match step {
                Step::Data(range) => payload.extend_from_slice(&input[at..][range]),
                Step::More => return Ok((payload, at + used, false)),
                Step::End => return Ok((payload, at + used, true)),
            }
            at += used;
        }
    }

    #[test]
    fn chunks_are_joined_and_the_end_is_found() {
        let body = b"5\r\nhello\r\n00A\r\n, world!!!\r\n0\r\n\r\n";
        let expected = Ok((b"hello, world!!!".to_vec(), body.len(), true));
        assert_eq!(decode(body), expected);
        assert_eq!(decode(&[body, b"rest".as_slice()].concat()), expected);
        assert_eq!(decode(b"0\r\n\r\n"), Ok((vec![], 5, true)));
        assert_eq!(decode(b"5\r\nhel"), Ok((b"hel".to_vec(), 6, false)));
    }

    #[test]
    fn extensions_and_trailers_are_skipped() {
        let body = b"1;a=\"b;c\"\r\nx\r\n0;last\r\nDigest: sha-256=x\r\nEmpty:\r\n\r\n";
        assert_eq!(decode(body), Ok((b"x".to_vec(), body.len(), true)));
    }

    #[test]
    fn framing_that_breaks_a_rule_is_refused() {
        let cases: &[(&[u8], &str)] = &[
            (b"\r\n", "chunk size without digits"),
            (b"-1\r\n", "chunk size without digits"),
            (b" 1\r\n", "chunk size without digits"),
            (b"0x1\r\n", "chunk size with a byte that is no hex digit"),
            (b"1 \r\n", "chunk size with a byte that is no hex digit"),
            (b"1\n", "chunk size with a byte that is no hex digit"),
            (b"0000000000000001", "chunk size with too many digits"),
            (b"1\rx", "chunk size line not ended by CRLF"),
            (b"1;x\n", "control character in a chunk extension"),
            (b"1\r\nab", "chunk not ended by CRLF"),
            (b"1\r\na\n", "chunk not ended by CRLF"),
            (b"1\r\na\rb", "chunk not ended by CRLF"),
            (b"0\r\n\n", "trailer name that is not a token"),
            (b"0\r\n folded\r\n", "trailer name that is not a token"),
            (b"0\r\na : b\r\n", "trailer name that is not a token"),
            (b"0\r\na: b\n\r\n", "control character in a trailer"),
            (b"0\r\na: \0\r\n", "control character in a trailer"),
            (b"0\r\na: b\rc", "trailer line not ended by CRLF"),
            (b"0\r\n\rx", "chunked body not ended by CRLF"),
        ];
        for (input, rule) in cases {
            assert_eq!(decode(input), Err(*rule), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn fifteen_digits_are_a_size() {
        let mut decoder = ChunkDecoder::new();
        assert_eq!(decoder.decode(b"fffffffffffffff\r\n"), Ok((17, Step::More)));
        assert_eq!(decoder.size, (1 << 60) - 1);
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let ext = |n: usize| [b"1;".as_slice(), &vec![b'x'; n], b"\r\na\r\n0\r\n\r\n"].concat();
        assert!(decode(&ext(256)).is_ok());
        assert_eq!(decode(&ext(257)), Err("chunk extension too long"));
        let trailers = |n: usize| [b"0\r\n".as_slice(), &b"a: b\r\n".repeat(n), b"\r\n"].concat();
        assert!(decode(&trailers(256)).is_ok());
        assert_eq!(decode(&trailers(257)), Err("too many trailer fields"));
        let long = |n: u16| format!("0\r\na: {}\r\n\r\n", "b".repeat(usize::from(n))).into_bytes();
        assert!(decode(&long(MAX_TRAILERS - 5)).is_ok());
        assert_eq!(
            decode(&long(MAX_TRAILERS - 4)),
            Err("trailer section too long")
        );
    }
}
