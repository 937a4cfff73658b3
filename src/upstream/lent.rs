//! The payload of one read, where it was read, or what is sent in its place.

use std::ops::Range;

/// Room in front of what is read: a chunk's size line, of up to eight digits.
pub const FRONT: usize = 10;
/// Room behind what is read, for the CRLF that ends a chunk.
pub const BACK: usize = 2;

/// The payload of one read, lent for as long as the poll in which it came. What is not to be copied is sent
/// from here.
#[derive(Debug)]
pub struct Lent<'a> {
    buffer: &'a mut [u8],
    payload: Range<usize>,
}

impl<'a> Lent<'a> {
    /// `payload` lies in `buffer`, and is not empty; before it are at least [`FRONT`] bytes and behind it
    /// [`BACK`], which nobody needs any more.
    pub fn new(buffer: &'a mut [u8], payload: Range<usize>) -> Self {
        debug_assert!(payload.start >= FRONT && payload.end + BACK <= buffer.len());
        Self { buffer, payload }
    }

    /// Chunk framing taken out. Never empty.
    pub fn payload(&self) -> &[u8] {
        &self.buffer[self.payload.clone()]
    }

    /// The payload as one chunk (RFC 9112 §7.1) in one piece: its framing is written around it.
    pub fn into_chunk(self) -> &'a [u8] {
        let Range { start, end } = self.payload;
        self.buffer[end..end + BACK].copy_from_slice(b"\r\n");
        self.buffer[start - 2..start].copy_from_slice(b"\r\n");
        let (mut at, mut left) = (start - 2, end - start);
        loop {
            at -= 1;
            self.buffer[at] = b"0123456789ABCDEF"[left & 0xf];
            left >>= 4;
            if left == 0 {
                return &self.buffer[at..end + BACK];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_the_size_in_hex_and_the_payload() {
        for length in [1, 9, 15, 16, 255, 256, 4095, 4096, 65_535, 65_536] {
            let mut buffer = vec![b'x'; FRONT + length + BACK];
            let lent = Lent::new(&mut buffer, FRONT..FRONT + length);
            assert_eq!(lent.payload().len(), length);
            let payload = "x".repeat(length);
            assert_eq!(
                lent.into_chunk(),
                format!("{length:X}\r\n{payload}\r\n").as_bytes()
            );
        }
    }
}
