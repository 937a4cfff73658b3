//! Misbehaviour that does not need the answer's making: whole answers that are wrong, or none.

use tokio::time::sleep;

use super::connection::{Connection, End, Gone};
use super::errors::ErrorAnswer;
use super::http::{LAST_CHUNK, chunk};
use super::request::Ask;
use super::responder::Responder;
use super::script::{Fault, Script};

/// What happens before an answer is begun; `None` when it is then made as usual.
pub(super) async fn misbehave_before(
    connection: &mut Connection,
    responder: &Responder,
    ask: &Ask,
    script: &Script,
    fault: &Fault,
) -> Result<Option<End>, Gone> {
    match fault {
        Fault::ResetOnBody => Ok(Some(End::Reset)),
        Fault::CloseOnBody => Ok(Some(End::Close)),
        Fault::Silence => Err(connection.gone().await),
        Fault::Status(status) => {
            let mut out = Vec::new();
            let error = ErrorAnswer::of_status(script.flavour, *status);
            responder.error(&mut out, &ask.api.error(error));
            connection.write(&out).await?;
            Ok(Some(responder.end()))
        }
        Fault::Error { after, error } if *after == 0 && !ask.stream => {
            let mut out = Vec::new();
            let error = ErrorAnswer::of_engine(script.flavour, *error);
            responder.error(&mut out, &ask.api.error(error));
            connection.write(&out).await?;
            Ok(Some(responder.end()))
        }
        Fault::GarbageHead => {
            connection
                .write(b"\x16\x03\x01 this is not HTTP\r\n\x00\xff\r\n\r\n{}")
                .await?;
            Ok(Some(End::Close))
        }
        Fault::EndlessHead => endless_head(connection).await,
        Fault::Informational { times } => {
            for _ in 0..*times {
                connection
                    .write(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n")
                    .await?;
            }
            Ok(None)
        }
        Fault::SwitchingProtocols => {
            connection
                .write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\x02hi")
                .await?;
            Err(connection.gone().await)
        }
        Fault::CloseOnReuse => {
            connection.close_on_reuse();
            Ok(None)
        }
        Fault::Split { size } => {
            connection.split_writes(Some(*size));
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// At most 64 MiB, should nobody stop it.
async fn endless_head(connection: &mut Connection) -> Result<Option<End>, Gone> {
    connection.write(b"HTTP/1.1 200 OK\r\n").await?;
    let field = format!("x-filler: {}\r\n", "x".repeat(1000));
    for _ in 0..64 << 10 {
        connection.write(field.as_bytes()).await?;
        tokio::task::yield_now().await;
    }
    Ok(Some(End::Close))
}

/// Writes a response head, byte by byte if the fault says so.
pub(super) async fn write_head(
    connection: &mut Connection,
    head: &[u8],
    fault: Option<&Fault>,
) -> Result<(), Gone> {
    let Some(Fault::SlowHead { gap }) = fault else {
        return Ok(connection.write(head).await?);
    };
    for byte in head {
        connection.write(std::slice::from_ref(byte)).await?;
        sleep(*gap).await;
    }
    Ok(())
}

/// Sends a whole answer with framing that is wrong, if that is the fault.
pub(super) async fn misframe(
    connection: &mut Connection,
    responder: &mut Responder,
    kind: &str,
    body: &[u8],
    fault: Option<&Fault>,
) -> Result<Option<End>, Gone> {
    let (right, longer, shorter) = (
        body.len().to_string(),
        (body.len() + 10).to_string(),
        (body.len() - body.len() / 2).to_string(),
    );
    let lengths: &[&str] = match fault {
        Some(Fault::LengthTooLong) => &[&longer],
        Some(Fault::LengthTooShort) => &[&shorter],
        Some(Fault::BytesAfterEnd | Fault::LengthAndChunked) => &[&right],
        Some(Fault::TwoLengths) => &[&right, &longer],
        Some(Fault::CloseDelimited) => &[],
        _ => return Ok(None),
    };
    if fault == Some(&Fault::CloseDelimited) {
        responder.close();
    }
    let mut fields: Vec<_> = lengths
        .iter()
        .map(|length| ("content-length", *length))
        .collect();
    fields.push(("content-type", kind));
    let mut out = Vec::new();
    responder.head(
        &mut out,
        200,
        &fields,
        fault == Some(&Fault::LengthAndChunked),
    );
    if fault == Some(&Fault::LengthAndChunked) {
        chunk(&mut out, &[body]);
        out.extend_from_slice(LAST_CHUNK);
    } else {
        out.extend_from_slice(body);
    }
    if fault == Some(&Fault::BytesAfterEnd) {
        // What a reader that pools this connection would take for the next answer.
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nsmuggled");
    }
    connection.write(&out).await?;
    match fault {
        Some(Fault::LengthTooLong | Fault::CloseDelimited) => Ok(Some(End::Close)),
        _ => Ok(Some(End::Keep)),
    }
}
