use proptest::prelude::*;

use super::*;
use crate::upstream::differential;

/// All that can be learnt from an answer, whichever way its bytes came.
#[derive(Debug, PartialEq)]
struct Outcome {
    head: Option<ResponseHead>,
    payload: Vec<u8>,
    failure: Option<DecodeError>,
    done_before_close: bool,
    reusable: bool,
}

/// Decodes the pieces as if each had been one read, then a close.
fn decode<'a>(
    request: RequestKind,
    limits: HeadLimits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Outcome {
    let mut decoder = Decoder::new(request, limits);
    let (mut head, mut payload) = (None, Vec::new());
    for piece in pieces {
        let mut at = 0;
        while let Ok((used, event)) = decoder.decode(&piece[at..]) {
            match event {
                Event::Head(found) => assert!(head.replace(found).is_none(), "two heads"),
                Event::Data(range) => payload.extend_from_slice(&piece[at..][range]),
                Event::More | Event::End => {
                    assert_eq!(at + used, piece.len(), "bytes left over");
                    break;
                }
            }
            at += used;
        }
    }
    let (done_before_close, reusable) = (decoder.is_done(), decoder.is_reusable());
    let _ = decoder.end_of_input();
    Outcome {
        head,
        payload,
        failure: decoder.failure(),
        done_before_close,
        reusable,
    }
}

fn whole(text: &[u8]) -> Outcome {
    decode(RequestKind::Other, HeadLimits::default(), [text])
}

fn failure(text: &str) -> Option<DecodeError> {
    whole(text.as_bytes()).failure
}

#[test]
fn a_sized_answer_ends_by_its_length() {
    let answer = whole(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(answer.payload, b"hello");
    assert!(answer.done_before_close && answer.reusable && answer.failure.is_none());
}

#[test]
fn a_chunked_answer_ends_by_its_last_chunk() {
    let answer =
        whole(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(answer.payload, b"hello");
    assert!(answer.done_before_close && answer.reusable && answer.failure.is_none());
}

#[test]
fn an_answer_without_length_ends_by_the_close_and_is_not_reusable() {
    let answer = whole(b"HTTP/1.1 200 OK\r\n\r\nhello");
    assert_eq!(answer.payload, b"hello");
    assert!(!answer.done_before_close && !answer.reusable && answer.failure.is_none());
}

#[test]
fn an_answer_that_ends_too_early_is_closed() {
    for text in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        assert_eq!(failure(text), Some(DecodeError::Closed), "{text}");
    }
}

#[test]
fn bytes_after_the_end_spoil_the_connection_but_not_the_answer() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloH",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nH",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let answer = whole(text.as_bytes());
        assert!(
            answer.failure.is_none() && answer.done_before_close && !answer.reusable,
            "{text}"
        );
    }
}

#[test]
fn a_head_request_gets_no_body() {
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let answer = decode(RequestKind::Head, HeadLimits::default(), [text.as_slice()]);
    assert!(answer.done_before_close && answer.reusable && answer.payload.is_empty());
}

#[test]
fn interim_answers_are_skipped_up_to_a_bound() {
    let answer = |interim: usize| {
        [
            "HTTP/1.1 102 Processing\r\nX: y\r\n\r\n"
                .repeat(interim)
                .as_str(),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ]
        .concat()
    };
    assert_eq!(whole(answer(8).as_bytes()).head.unwrap().status, 200);
    assert_eq!(
        failure(&answer(9)),
        Some(DecodeError::Malformed("too many interim answers"))
    );
    assert_eq!(
        failure("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
        Some(DecodeError::Malformed("101 that nobody asked for"))
    );
}

#[test]
fn what_is_not_http_is_refused_at_its_first_bytes() {
    for text in ["SSH-2.0", "\r\n", "HTTP/2", "http/1.1", "HTTP 1.1"] {
        let mut decoder = Decoder::new(RequestKind::Other, HeadLimits::default());
        let refused = Err(DecodeError::Malformed("not an answer of HTTP/1"));
        assert_eq!(decoder.decode(text.as_bytes()), refused, "{text}");
        assert_eq!(
            decoder.decode(b"HTTP/1.1 200 OK\r\n\r\n"),
            refused,
            "an error must last"
        );
    }
}

#[test]
fn a_bare_newline_in_the_head_is_refused_without_waiting_for_its_end() {
    let mut decoder = Decoder::new(RequestKind::Other, HeadLimits::default());
    assert!(decoder.decode(b"HTTP/1.1 200 OK\n").is_err());
}

#[test]
fn heads_are_bounded_in_bytes_and_fields() {
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let bounded = |bytes| {
        decode(
            RequestKind::Other,
            HeadLimits { bytes, fields: 256 },
            [text.as_slice()],
        )
    };
    assert!(bounded(text.len()).failure.is_none());
    assert_eq!(
        bounded(text.len() - 1).failure,
        Some(DecodeError::HeadTooLarge)
    );

    let fields = |n| ["HTTP/1.1 204 OK\r\n", "a: b\r\n".repeat(n).as_str(), "\r\n"].concat();
    assert_eq!(failure(&fields(256)), None);
    assert_eq!(failure(&fields(257)), Some(DecodeError::HeadTooLarge));

    // A peer that never ends its head is stopped at the limit, and so is what we keep of it.
    let mut decoder = Decoder::new(RequestKind::Other, HeadLimits::default());
    let mut sent = decoder.decode(b"HTTP/1.1 200 OK\r\nX: ").unwrap().0;
    while decoder.decode(&[b'a'; 100]).is_ok() {
        sent += 100;
    }
    assert!(sent < 64 * 1024 && decoder.failure() == Some(DecodeError::HeadTooLarge));
}

#[test]
fn a_limit_that_shrinks_below_what_came_is_over() {
    let mut decoder = Decoder::new(RequestKind::Other, HeadLimits::default());
    decoder
        .decode(b"HTTP/1.1 200 OK\r\nServer: uvicorn\r\n")
        .unwrap();
    decoder.set_limits(HeadLimits {
        bytes: 20,
        fields: 256,
    });
    assert_eq!(decoder.decode(b"\r\n"), Err(DecodeError::HeadTooLarge));
}

#[test]
fn every_rule_on_which_we_are_stricter_than_hyper_has_an_answer_that_hyper_takes() {
    let chunked =
        |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let fields = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n5\r\nhello\r\n0\r\n\r\n");
    let examples = [
        "\r\nHTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "HTTP/1.1 204 No Content\n\n".to_owned(),
        [
            "HTTP/1.1 102 x\r\n\r\n".repeat(9).as_str(),
            "HTTP/1.1 204 x\r\n\r\n",
        ]
        .concat(),
        fields("Content-Length: 5\r\nContent-Length: 5\r\n"),
        fields("Content-Length: 5, 5\r\n"),
        fields("Transfer-Encoding: gzip, chunked\r\n"),
        fields("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        "HTTP/1.0 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        chunked("1 \r\nx\r\n0\r\n\r\n"),
        chunked("0000000000000001\r\nx\r\n0\r\n\r\n"),
        chunked("1;\x01\r\nx\r\n0\r\n\r\n"),
        chunked(&format!("1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(257))),
        chunked(&format!("0\r\na: {}\r\n\r\n", "b".repeat(8192))),
        chunked("0\r\n\na: b\r\n\r\n"),
        chunked("0\r\na: b\n\r\n\r\n"),
    ];
    let mut rules = Vec::new();
    for text in &examples {
        let Some(DecodeError::Malformed(rule)) = failure(text) else {
            panic!("accepted: {text}")
        };
        assert!(
            differential::hyper_accepts(RequestKind::Other, text.as_bytes()),
            "{rule}"
        );
        rules.push(rule);
    }
    // A 101 hands hyper's connection over; there is no body to complete.
    rules.push("101 that nobody asked for");
    let mut stricter = differential::STRICTER.to_vec();
    rules.sort_unstable();
    stricter.sort_unstable();
    assert_eq!(rules, stricter);
}

/// Answers that are well formed, or nearly.
fn answer() -> impl Strategy<Value = Vec<u8>> {
    // What is repeated comes up more often.
    let line = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 204 \r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\n",
        "HTTP/1.1 101 x\r\n",
    ]);
    let field = prop::sample::select(vec![
        "Content-Length: 12\r\n",
        "Content-Length: 12\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Server: uvicorn\r\n",
        "X: y\n",
        " folded\r\n",
        "A : b\r\n",
    ]);
    let body = prop::sample::select(vec![
        "hello, world",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n",
        "7;x=y\r\n, world\r\n",
        "0\r\n\r\n",
        "0\r\nX: y\r\n\r\n",
        "g\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ]);
    let noise = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    let fields = proptest::collection::vec(field, 0..3);
    (line, fields, proptest::collection::vec(body, 0..4), noise).prop_map(
        |(line, fields, body, noise)| {
            let mut text = [line, &fields.concat(), "\r\n", &body.concat()]
                .concat()
                .into_bytes();
            for (index, byte) in noise {
                let at = index.index(text.len());
                text[at] = byte;
            }
            text
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_way_of_cutting_gives_the_same_answer(
        text in answer(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        is_head in any::<bool>(),
        bytes in prop_oneof![Just(64 * 1024), 1..120_usize],
        fields in 0..4_usize,
    ) {
        let request = if is_head { RequestKind::Head } else { RequestKind::Other };
        let limits = HeadLimits { bytes, fields };
        let expected = decode(request, limits, [text.as_slice()]);
        prop_assert_eq!(&decode(request, limits, text.chunks(1)), &expected);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut pieces, mut rest, mut before) = (Vec::new(), text.as_slice(), 0);
        for cut in cuts {
            let (piece, tail) = rest.split_at(cut - before);
            pieces.push(piece);
            (rest, before) = (tail, cut);
        }
        pieces.push(rest);
        prop_assert_eq!(&decode(request, limits, pieces), &expected);
    }

    #[test]
    fn what_is_accepted_hyper_reads_in_the_same_way(text in answer(), is_head in any::<bool>()) {
        let request = if is_head { RequestKind::Head } else { RequestKind::Other };
        prop_assert_eq!(differential::disagreement(request, &text), None);
    }
}
