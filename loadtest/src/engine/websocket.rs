//! WebSocket (RFC 6455) as far as vLLM's `/v1/realtime` needs it.
//!
//! The engine greets with `session.created`, as vLLM does. What it is sent it sends back, frame by frame, but for a
//! commit of audio, which it answers with a transcription: how many bytes it was.

use std::sync::atomic::Ordering::Relaxed;

use super::connection::{Connection, End, Gone};
use super::errors::ErrorAnswer;
use super::http::{Head, now};
use super::responder::Responder;
use super::shared::InFlight;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Longest payload that is read; longer ones end the connection (1009).
const LONGEST: usize = 16 << 20;

/// Whether uvicorn takes a request for a handshake.
pub(super) fn is_asked(head: &Head) -> bool {
    let has = |name, word: &str| {
        head.header(name).is_some_and(|value| {
            value
                .split(',')
                .any(|option| option.trim().eq_ignore_ascii_case(word))
        })
    };
    head.method == "GET" && has("connection", "upgrade") && has("upgrade", "websocket")
}

/// Shakes hands and talks until one side closes.
pub(super) async fn serve(
    connection: &mut Connection,
    responder: &Responder,
    head: &Head,
) -> Result<End, Gone> {
    let mut out = Vec::new();
    let Some(key) = head.header("sec-websocket-key") else {
        let missing = "Failed to open a WebSocket connection: missing Sec-WebSocket-Key header.\n";
        responder.body(
            &mut out,
            400,
            "text/plain; charset=utf-8",
            missing.as_bytes(),
        );
        connection.write(&out).await?;
        return Ok(End::Close);
    };
    if head.header("sec-websocket-version") != Some("13") {
        responder.error(&mut out, &ErrorAnswer::not_found());
        connection.write(&out).await?;
        return Ok(End::Close);
    }
    let shared = std::sync::Arc::clone(&connection.shared);
    let _in_flight = InFlight::enter(&shared);
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    );
    out.extend_from_slice(format!("Sec-WebSocket-Accept: {}\r\ndate: ", accept(key)).as_bytes());
    shared.date.push(&mut out);
    out.extend_from_slice(b"\r\nserver: uvicorn\r\n\r\n");
    let created = format!(
        r#"{{"type":"session.created","id":"sess-{}","created":{}}}"#,
        responder.answer_id,
        now()
    );
    push_frame(&mut out, TEXT, created.as_bytes());
    connection.write(&out).await?;
    let ended = talk(connection).await;
    match ended {
        Ok(_) => shared.completed.fetch_add(1, Relaxed),
        Err(Gone) => shared.left.fetch_add(1, Relaxed),
    };
    ended
}

async fn talk(connection: &mut Connection) -> Result<End, Gone> {
    let mut audio = 0;
    loop {
        let (opcode, payload) = match parse(connection.input()) {
            Parsed::More => {
                connection.read_some().await?;
                continue;
            }
            Parsed::Broken(code) => {
                let mut out = Vec::new();
                push_frame(&mut out, CLOSE, &u16::to_be_bytes(code));
                connection.write(&out).await?;
                return Ok(End::Close);
            }
            Parsed::Frame {
                opcode,
                payload,
                used,
            } => {
                connection.use_input(used);
                (opcode, payload)
            }
        };
        let mut out = Vec::new();
        match opcode {
            CLOSE => {
                push_frame(&mut out, CLOSE, &payload);
                connection.write(&out).await?;
                return Ok(End::Close);
            }
            PING => push_frame(&mut out, PONG, &payload),
            PONG => {}
            TEXT if is_of_type(&payload, "input_audio_buffer.append") => audio += payload.len(),
            TEXT if is_of_type(&payload, "input_audio_buffer.commit") => {
                let text = format!(
                    r#"{{"type":"transcription.done","text":"{audio} bytes","usage":{{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}}}"#
                );
                push_frame(&mut out, TEXT, text.as_bytes());
                audio = 0;
            }
            _ => push_frame(&mut out, opcode, &payload),
        }
        connection.write(&out).await?;
    }
}

fn is_of_type(event: &[u8], kind: &str) -> bool {
    serde_json::from_slice::<serde_json::Value>(event).is_ok_and(|event| event["type"] == kind)
}

/// What a client's bytes begin with.
enum Parsed {
    More,
    /// The status code of the close that it is answered with.
    Broken(u16),
    Frame {
        opcode: u8,
        payload: Vec<u8>,
        used: usize,
    },
}

/// Reads one masked frame. Fragments are frames of their own here.
fn parse(input: &[u8]) -> Parsed {
    let [first, second, rest @ ..] = input else {
        return Parsed::More;
    };
    if second & 0x80 == 0 {
        return Parsed::Broken(1002);
    }
    let wide = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some((length, rest)) = rest.split_at_checked(wide) else {
        return Parsed::More;
    };
    let length = match wide {
        0 => usize::from(second & 0x7f),
        _ => length.iter().fold(0, |sum: usize, byte| {
            sum.saturating_mul(256).saturating_add(usize::from(*byte))
        }),
    };
    if length > LONGEST {
        return Parsed::Broken(1009);
    }
    let Some((mask, rest)) = rest.split_at_checked(4) else {
        return Parsed::More;
    };
    let Some(masked) = rest.get(..length) else {
        return Parsed::More;
    };
    let payload = masked
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask);
    Parsed::Frame {
        opcode: first & 0xf,
        payload: payload.collect(),
        used: 2 + wide + 4 + length,
    }
}

/// A whole frame as servers send them, without a mask.
fn push_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        short @ ..126 => out.push(short as u8),
        middle @ ..0x1_0000 => {
            out.push(126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2).
fn accept(key: &str) -> String {
    base64(&sha1(
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    ))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .fold(0, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= three.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

/// SHA-1 (FIPS 180-4), which the handshake asks for.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [
        0x6745_2301,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
    ];
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize((message.len() + 9).next_multiple_of(64) - 8, 0);
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut words = [0u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks(4)) {
            *word = bytes
                .iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        for at in 16..80 {
            words[at] =
                (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mixed, constant) = match at {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mixed)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_of_rfc_6455s_example_is_its_own() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(base64(b"a"), "YQ==");
        assert_eq!(base64(b"ab"), "YWI=");
    }

    #[test]
    fn a_frame_is_read_once_it_is_whole() {
        let mut frame = vec![0x81, 0x80 | 5, 1, 2, 3, 4];
        frame.extend(
            b"Hello"
                .iter()
                .zip([1, 2, 3, 4].iter().cycle())
                .map(|(a, b)| a ^ b),
        );
        for cut in 0..frame.len() {
            assert!(matches!(parse(&frame[..cut]), Parsed::More), "{cut}");
        }
        frame.extend_from_slice(b"rest");
        let Parsed::Frame {
            opcode,
            payload,
            used,
        } = parse(&frame)
        else {
            panic!("it is whole");
        };
        assert_eq!(
            (opcode, payload.as_slice(), used),
            (TEXT, &b"Hello"[..], 11)
        );
        assert!(matches!(parse(&[0x81, 5]), Parsed::Broken(1002)));
        assert!(matches!(
            parse(&[0x81, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]),
            Parsed::Broken(1009)
        ));
    }

    #[test]
    fn lengths_are_written_in_the_shortest_way() {
        for (length, head) in [
            (125, &[0x82, 125][..]),
            (126, &[0x82, 126, 0, 126]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            push_frame(&mut out, 2, &vec![0; length]);
            assert_eq!(&out[..head.len()], head);
            assert_eq!(out.len(), head.len() + length);
        }
    }
}
