use super::*;

fn head(text: &str) -> ResponseHead {
    ResponseHead::parse(text.as_bytes()).unwrap()
}

fn framing(fields: &str) -> Result<Framing, DecodeError> {
    head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).framing(RequestKind::Other)
}

#[test]
fn fields_keep_their_order_case_and_bytes() {
    let head =
        head("HTTP/1.1 404 Not Found\r\nServer: x\r\nX-A:  1 \t\r\nx-a:\r\nZ: \u{e9}\r\n\r\n");
    assert_eq!(
        (head.status, head.version_minor, head.reason()),
        (404, 1, b"Not Found".as_slice())
    );
    let fields: Vec<_> = head.iter().collect();
    let expected: [(&[u8], &[u8]); 4] = [
        (b"Server", b"x"),
        (b"X-A", b"1"),
        (b"x-a", b""),
        (b"Z", "\u{e9}".as_bytes()),
    ];
    assert!(
        fields
            .iter()
            .map(|(name, value)| (*name, value.as_ref()))
            .eq(expected)
    );
    assert_eq!(head.get("x-a"), Some(b"1".as_slice()));
    assert_eq!(head.values("X-A").count(), 2);
    assert_eq!(head.get("date"), None);
    for (_, value) in head.iter() {
        assert!(http::HeaderValue::from_maybe_shared(value).is_ok());
    }
}

#[test]
fn a_value_shares_the_memory_of_the_head() {
    let head = head("HTTP/1.1 200 OK\r\nServer: uvicorn\r\n\r\n");
    let (_, value) = head.iter().next().unwrap();
    assert!(head.text.as_ptr_range().contains(&value.as_ptr()));
}

#[test]
fn event_streams_are_told_by_their_media_type() {
    let is = |value: &str| {
        head(&format!("HTTP/1.1 200 OK\r\nContent-Type: {value}\r\n\r\n"))
            .content_type_is_event_stream()
    };
    assert!(is("text/event-stream"));
    assert!(is("Text/Event-Stream; charset=utf-8"));
    assert!(is("text/event-stream ;charset=utf-8"));
    assert!(!is("text/event-stream-x"));
    assert!(!is("text/event"));
    assert!(!is("application/json"));
    assert!(!head("HTTP/1.1 200 OK\r\n\r\n").content_type_is_event_stream());
}

#[test]
fn a_body_is_sized_or_chunked_or_runs_until_the_close() {
    assert_eq!(
        framing("Content-Length: 0042\r\n").unwrap().body,
        BodyKind::Sized(42)
    );
    assert_eq!(
        framing("Transfer-Encoding: Chunked\r\n").unwrap().body,
        BodyKind::Chunked
    );
    let until_close = framing("Server: x\r\n").unwrap();
    assert_eq!(
        (until_close.body, until_close.keep_alive),
        (BodyKind::UntilClose, false)
    );
}

#[test]
fn framing_that_can_be_read_in_two_ways_is_refused() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551617\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        assert!(
            matches!(framing(fields), Err(DecodeError::Malformed(_))),
            "{fields}"
        );
    }
    let old = head("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(old.framing(RequestKind::Other).is_err());
}

#[test]
fn answers_without_a_body_have_none_whatever_the_head_says() {
    let body = |status: u16, request| {
        let head = head(&format!("HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\n"));
        let framing = head.framing(request).unwrap();
        assert_eq!(framing.content_length, Some(5));
        framing.body
    };
    assert_eq!(body(200, RequestKind::Head), BodyKind::Sized(0));
    assert_eq!(body(204, RequestKind::Other), BodyKind::Sized(0));
    assert_eq!(body(304, RequestKind::Other), BodyKind::Sized(0));
    assert_eq!(body(200, RequestKind::Other), BodyKind::Sized(5));
}

#[test]
fn a_connection_is_kept_by_version_and_options() {
    let kept = |version: &str, fields: &str| {
        let head = head(&format!(
            "HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{fields}\r\n"
        ));
        head.framing(RequestKind::Other).unwrap().keep_alive
    };
    assert!(kept("1.1", ""));
    assert!(!kept("1.1", "Connection: Close\r\n"));
    assert!(!kept("1.1", "Connection: x, close\r\n"));
    assert!(!kept(
        "1.1",
        "Connection: keep-alive\r\nConnection: close\r\n"
    ));
    assert!(!kept("1.0", ""));
    assert!(kept("1.0", "Connection: Keep-Alive\r\n"));
}

#[test]
fn heads_that_break_a_rule_are_refused() {
    for text in [
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\x7fc\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
    ] {
        assert!(
            ResponseHead::parse(text.as_bytes()).is_err(),
            "{}",
            text.escape_debug()
        );
    }
}
