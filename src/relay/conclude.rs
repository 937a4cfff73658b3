//! The ends of an answer: what is settled, and what the client is told.

use std::time::Duration;

use log::warn;
use pingora::Result;
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::openai::{ApiError, Dialect, Usage};
use crate::pool::{Fault, Outcome};

use super::ctx::{End, RequestCtx, Tokens};
use super::events::Events;
use super::respond;
use super::stream::{Broken, Place, Shown};
use super::turn;

/// h2: RST_STREAM overtakes DATA that was just written, so the error event gets a moment to leave.
const H2_RESET_DELAY: Duration = Duration::from_millis(20);
/// HTTP/1.0: an RST drops what the peer has not taken yet, so the error event gets a moment.
const H1_RESET_DELAY: Duration = Duration::from_millis(100);

/// What a stream cost, however it ended: by the engine's count, else by its events, each of which has one
/// token or more. Of one that could not be read to its end nobody knows.
pub fn count_tokens(ctx: &mut RequestCtx, events: Option<&Events>) {
    let Some(events) = events else {
        return;
    };
    let counted = events.counted().unwrap_or_default();
    let is_estimated = counted.completion.is_none() && !events.is_unread();
    let completion = match events.is_unread() {
        true => None,
        false => counted.completion.or(Some(events.at_least())),
    };
    ctx.tokens = Tokens {
        usage: Usage {
            completion,
            ..counted
        },
        is_estimated,
    };
}

/// Settles with the endpoint and ends the answer in the one way that tells the client the truth.
/// `told_as`: a stream that is cut is told so in this API's own way.
pub async fn conclude(
    session: &mut Session,
    ctx: &mut RequestCtx,
    result: Shown,
    place: Option<Place>,
    told_as: Option<Dialect>,
) -> Result<()> {
    match result {
        Ok(()) => {
            let now = Instant::now();
            let is_well = ctx.status.is_some_and(|status| status < 400);
            if let Some(Place {
                connection, lease, ..
            }) = place
            {
                super::give_back(&lease, connection, now);
                lease.settle(
                    if is_well {
                        Outcome::Completed
                    } else {
                        Outcome::Neutral
                    },
                    now,
                );
            }
            ctx.end = End::Complete;
            Ok(())
        }
        Err(Broken::Client(e)) => {
            settle(place, Outcome::Abandoned);
            ctx.fail(End::ClientLeft, "the client left");
            Err(e)
        }
        Err(Broken::Told { by_client }) => {
            // A request that the engine will not serve speaks against the request.
            let outcome = if by_client {
                Outcome::Neutral
            } else {
                Outcome::Failed(Fault::ErrorEvent)
            };
            settle(place, outcome);
            if !by_client && told_as.is_some() {
                ctx.cut.get_or_insert("refused");
            }
            ctx.fail(End::UpstreamCut, "error_event");
            end_unclean(session, ctx).await
        }
        Err(Broken::Diverged) => {
            settle(place, Outcome::Neutral);
            ctx.cut = Some("failed");
            ctx.fail(End::UpstreamCut, "diverged");
            if let Some(dialect) = told_as {
                tell(session, ctx, &ApiError::UpstreamFailed, dialect).await;
            }
            end_unclean(session, ctx).await
        }
        Err(Broken::Upstream { fault, detail }) => {
            let mut error = ApiError::UpstreamFailed;
            if let Some(Place { lease, .. }) = &place {
                // No stream beside it is to be blamed alone.
                lease.state.cut_alone(Instant::now());
                warn!(
                    "endpoint {}: {} in the middle of an answer, which cannot go on elsewhere: {detail} (request {})",
                    lease.endpoint().name,
                    fault.reason(),
                    String::from_utf8_lossy(ctx.request_id.as_bytes())
                );
                if fault == Fault::ReadTimedOut {
                    let after = lease.pool().timeouts.read;
                    error = ApiError::UpstreamTimeout { after };
                }
            }
            settle(place, turn::outcome_of(fault));
            ctx.fail(End::UpstreamCut, fault.reason());
            if let Some(dialect) = told_as {
                ctx.cut.get_or_insert("refused");
                tell(session, ctx, &error, dialect).await;
            }
            end_unclean(session, ctx).await
        }
    }
}

fn settle(place: Option<Place>, outcome: Outcome) {
    if let Some(place) = place {
        place.lease.settle(outcome, Instant::now());
    }
}

/// Tells the client in its API's own way that the rest will not come.
async fn tell(session: &mut Session, ctx: &mut RequestCtx, error: &ApiError, dialect: Dialect) {
    // A blank line first: of an event too long to be read the client may have the beginning.
    let mut event = b"\n\n".to_vec();
    event.extend_from_slice(&error.event(dialect));
    ctx.bytes_out += event.len() as u64;
    // If the client is gone as well, there is nobody to tell.
    let _ = session
        .as_downstream_mut()
        .write_response_body(event.into(), false)
        .await;
}

/// Ends the answer so that no client can take it for a whole one.
pub async fn end_unclean(session: &mut Session, ctx: &RequestCtx) -> Result<()> {
    if session.is_http2() {
        tokio::time::sleep(H2_RESET_DELAY).await;
        session
            .as_downstream_mut()
            .shutdown_with_reason(h2::Reason::INTERNAL_ERROR);
    } else if session.req_header().version < http::Version::HTTP_11 {
        tokio::time::sleep(H1_RESET_DELAY).await;
        if let Some(connection) = &ctx.connection {
            connection.reset_on_close();
        }
    }
    Err(respond::unclean())
}
