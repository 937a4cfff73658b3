//! A WebSocket, from the engine's 101 to its end: one lease and one permit for as long as it is open.
//!
//! Frames are not read: their bytes pass as they come. Pingora's session writes the 101 and gives up the
//! client's connection, because it cannot read and write at the same time.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{self, SEC_WEBSOCKET_PROTOCOL};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora_proxy::Session;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::listener::{self, Writes};
use crate::pool::{Fault, Lease, Outcome};
use crate::upstream::{ResponseHead, Tunnel};

use super::attempt::{Answer, joined};
use super::body::{DRAIN_BYTES, DRAIN_TIME};
use super::ctx::{End, RequestCtx};
use super::duplex::{self, Over, Patience, Way};
use super::handshake;
use super::respond::{self, Framing};

/// Passes the 101 to the client and then all bytes either way. `Err` ends the client's connection uncleanly.
pub async fn pass(
    session: &mut Session,
    ctx: &mut RequestCtx,
    answer: Box<Answer>,
    lease: Lease,
) -> Result<()> {
    ctx.status = Some(answer.head.status);
    ctx.is_stream = Some(true);
    let response = switching(&answer.head, session, ctx)?;
    if let Some(connection) = &ctx.connection {
        connection.set_writes(Writes::Prompt);
    }
    let limit = ctx.send_timeout();
    let down = Way::new(joined(&answer.held));
    let begun = begin(session.as_downstream_mut(), response, limit).await;
    let (mut client, up) = match begun {
        Ok(begun) => begun,
        Err(e) => {
            lease.settle(Outcome::Abandoned, Instant::now());
            ctx.fail(End::ClientLeft, "the client left");
            return Err(e);
        }
    };
    let mut engine = answer.connection.into_tunnel();
    let over = relay(&mut client, &mut engine, up, down, ctx, &lease).await;
    conclude(client, engine, over, ctx, lease).await
}

/// The engine's 101 as the client gets it.
fn switching(
    head: &ResponseHead,
    session: &mut Session,
    ctx: &RequestCtx,
) -> Result<Box<ResponseHeader>> {
    let mut response = respond::relayed_head(head, session, Framing::NoBody(None), ctx)?;
    response.insert_header(header::CONNECTION, HeaderValue::from_static("Upgrade"))?;
    response.insert_header(header::UPGRADE, HeaderValue::from_static("websocket"))?;
    let offered = &session.req_header().headers;
    if !response.headers.contains_key(SEC_WEBSOCKET_PROTOCOL)
        && let Some(protocol) = handshake::agreed(offered)
    {
        response.insert_header(SEC_WEBSOCKET_PROTOCOL, protocol)?;
    }
    Ok(response)
}

/// Writes the 101 and takes the client's connection, with what has come behind the client's head.
async fn begin(
    session: &mut ServerSession,
    response: Box<ResponseHeader>,
    limit: Duration,
) -> Result<(Stream, Way)> {
    respond::in_time(limit, session.write_response_header(response)).await?;
    // From the 101 on what the session holds is what it would read first, and it waits for nothing if it does.
    let first = poll_fn(|cx| Poll::Ready(pin!(session.read_request_body()).poll(cx))).await;
    let up = match first {
        Poll::Ready(Ok(Some(first))) => Way::new(first),
        Poll::Ready(Ok(None)) => Way::new(Bytes::new()).ended(),
        Poll::Ready(Err(e)) => return Err(e),
        Poll::Pending => Way::new(Bytes::new()),
    };
    Ok((listener::take_connection(session).await?, up))
}

async fn relay(
    client: &mut Stream,
    engine: &mut Tunnel,
    mut up: Way,
    mut down: Way,
    ctx: &mut RequestCtx,
    lease: &Lease,
) -> std::result::Result<Over, Fault> {
    let timeouts = &lease.pool().timeouts;
    let patience = Patience {
        silence: timeouts.read,
        client: ctx.send_timeout(),
        engine: timeouts.send,
    };
    let state = &lease.endpoint().state;
    // Its pings come while it hangs.
    let heard = |now| state.answered(now);
    // It cannot go on elsewhere, so one that may still come to its end is left alone.
    let recalled = async {
        loop {
            match lease.recalled().await {
                Fault::Drained => {}
                why => return why,
            }
        }
    };
    let over = tokio::select! {
        biased;
        over = duplex::run(client, engine, &mut up, &mut down, patience, heard) => Ok(over),
        why = recalled => Err(why),
    };
    ctx.body.len = usize::try_from(up.bytes).unwrap_or(usize::MAX);
    ctx.bytes_out = down.bytes;
    over
}

/// Ends both sides, each as cleanly as the other one ended.
async fn conclude(
    client: Stream,
    engine: Tunnel,
    over: std::result::Result<Over, Fault>,
    ctx: &mut RequestCtx,
    lease: Lease,
) -> Result<()> {
    // Once the handshake is done, what becomes of the connection says nothing for or against the engine: a client
    // can make it close, and close in the middle of what is being sent to it, which is a reset.
    let (outcome, end) = match &over {
        Ok(Over::ClientEnded | Over::EngineEnded) => (Outcome::Completed, None),
        Ok(Over::ClientLost(_) | Over::ClientFull) => (
            Outcome::Abandoned,
            Some((End::ClientLeft, "the client left")),
        ),
        // Whoever recalled the endpoint has seen to its health.
        Err(why) => (Outcome::Neutral, Some((End::UpstreamCut, why.reason()))),
        Ok(Over::EngineLost(_)) => {
            let reason = Fault::ConnectionLost.reason();
            (Outcome::Neutral, Some((End::UpstreamCut, reason)))
        }
        Ok(Over::Silent) => {
            let reason = Fault::ReadTimedOut.reason();
            (Outcome::Neutral, Some((End::UpstreamCut, reason)))
        }
        Ok(Over::EngineFull) => {
            let fault = Fault::SendTimedOut;
            // Its client may have stopped it, by not reading what it says.
            (Outcome::Neutral, Some((End::UpstreamCut, fault.reason())))
        }
    };
    if let Ok(Over::ClientLost(e) | Over::EngineLost(e)) = &over {
        log::debug!("a WebSocket was cut: {e}");
    }
    lease.settle(outcome, Instant::now());
    ctx.permit = None;
    if let Some((end, why)) = end {
        ctx.fail(end, why);
        return Err(respond::unclean());
    }
    // Both have all that was sent. If one is gone already, there is nobody to tell.
    let _ = tokio::join!(
        timeout(DRAIN_TIME, part(engine)),
        timeout(DRAIN_TIME, part(client)),
    );
    Ok(())
}

/// Says to a peer that it was all, and reads on for a moment: closing a socket with unread bytes sends
/// RST, which can take what was sent last with it.
async fn part(mut peer: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    AsyncWriteExt::shutdown(&mut peer).await?;
    let (mut drained, mut scratch) = (0, [0; 1024]);
    while drained < DRAIN_BYTES {
        match peer.read(&mut scratch).await? {
            0 => break,
            read => drained += read,
        }
    }
    Ok(())
}
