//! The turns of a stream that goes from engine to engine: where one stretch ends, the next begins or the end is
//! written.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use log::warn;
use pingora_proxy::Session;
use tokio::time::{Instant, sleep};

use crate::openai::continuation::{END_OF_REASONING, Kept};
use crate::pool::{Fault, Lease, Outcome, Pool};
use crate::upstream::Connection;

use super::attempt::{Answer, joined};
use super::continuing::{Onward, Went};
use super::ctx::RequestCtx;
use super::events::{Events, Failed};
use super::retry::Wait;
use super::stream::{self, Broken, Place, Shown};
use super::suspect;
use super::tokenize::tokenize;

/// A stream that is tried elsewhere is not read meanwhile: if its engine goes on, its client waits for so long at most. An
/// engine that needs longer for all that was said has less to read when it is tried again, for engines keep it.
const LEAVING: Duration = Duration::from_secs(3);

/// A stream begins that may have to go on elsewhere: what is shown is kept from its first event on. Gives what is
/// shown of `held`.
pub fn begin(
    onward: &mut Option<Box<Onward<'_>>>,
    lease: &Lease,
    events: &mut Events,
    mut held: Vec<Bytes>,
) -> Vec<Bytes> {
    let Some(kept) = onward.as_ref().and_then(|onward| onward.begin(lease)) else {
        *onward = None;
        let word = events.take_last_word();
        if !word.is_empty() {
            held.push(word);
        }
        return held;
    };
    events.keep(kept);
    let mut pieces = vec![events.dress(joined(&held))];
    let kept = events.continuable().map(|continuable| &continuable.kept);
    if kept.is_some_and(Kept::has_given_up) {
        *onward = None;
        pieces.push(events.take_last_word());
    } else if let (Some(kept), Some(onward)) = (kept, onward)
        && !kept.may_need_body()
    {
        // Not needed for anything more.
        onward.body.release();
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// What comes after a stretch of a stream.
pub enum Turn {
    /// Nothing. The place is gone where it was given up in search of another.
    Over(Shown, Option<Place>),
    On(Stretch),
    /// It goes on where it was.
    Stay(Place),
}

/// What another engine gives of the answer.
pub struct Stretch {
    pub place: Place,
    /// The first of it, to be shown.
    pub piece: Bytes,
    /// It has been read to its end.
    pub is_whole: bool,
    pub failed: Option<Failed>,
}

/// A stretch of a stream has ended with `result`: the next engine is found, or the end is written.
pub async fn turn(
    session: &mut Session,
    ctx: &mut RequestCtx,
    onward: &Onward<'_>,
    events: &mut Events,
    place: Place,
    result: Shown,
) -> Turn {
    let can_go_on = events.can_go_on();
    let Some(continuable) = events.continuable() else {
        return over(session, ctx, events, result, Some(place)).await;
    };
    let kept = &mut continuable.kept;
    let fault = match &result {
        Ok(()) => None,
        Err(Broken::Upstream { fault, .. }) => Some(*fault),
        Err(Broken::Told { by_client: false }) => Some(Fault::ErrorEvent),
        // It is asked once more, with the text for which it had other ids.
        Err(Broken::Diverged) if kept.text_to_tokenize().is_some() => None,
        Err(Broken::Client(_) | Broken::Diverged | Broken::Told { by_client: true }) => {
            return Turn::Over(result, Some(place));
        }
    };
    let metrics = onward.shared.pool_metrics(onward.pool);
    if kept.is_finished() {
        let end = kept.ending();
        let result = stream::write(session, ctx, events.renamed(end)).await;
        let Some(fault) = fault else {
            return Turn::Over(result, Some(place));
        };
        metrics.continued("end");
        place.lease.settle(outcome_of(fault), Instant::now());
        return Turn::Over(result, None);
    }
    if let (Some(why @ (Fault::Drained | Fault::ConnectRefused)), true) = (fault, can_go_on) {
        return Box::pin(move_on(session, ctx, onward, events, place, why)).await;
    }
    let (pool, asked) = match (fault, can_go_on) {
        (Some(fault), true) => {
            if Box::pin(suspect::cut(ctx, &place.lease, fault)).await {
                metrics.suspects.inc();
                suspect::tell_of_stream(&place.lease, ctx);
                ctx.cut = Some("failed");
                return over(session, ctx, events, result, Some(place)).await;
            }
            tell(&place.lease, ctx, fault, kept);
            ctx.cut_at = Some(place.lease.state.id);
            place.lease.settle(outcome_of(fault), Instant::now());
            let pool = onward.pool_now();
            let others = onward.others(&pool, kept, ctx.cut_at);
            (pool, others)
        }
        (None, _) if result.is_err() => {
            let pool = Arc::clone(place.lease.pool());
            let mut asked = onward.others(&pool, kept, Some(place.lease.state.id));
            asked.insert(0, place.lease.index());
            place.lease.settle(Outcome::Neutral, Instant::now());
            (pool, asked)
        }
        (None, _) => return Turn::Over(result, Some(place)),
        (Some(_), false) => return over(session, ctx, events, result, Some(place)).await,
    };
    drop(place.connection);
    // Boxed: every stream's task would be larger by what hardly any needs.
    if !Box::pin(inform(onward, kept, &pool, &asked, fault.is_none())).await {
        ctx.cut = Some("failed");
        return over(session, ctx, events, result, None).await;
    }
    let way = way_of(kept);
    match Box::pin(onward.go_on(session, ctx, kept, Wait::InLine)).await {
        Went::On(answer, lease) => {
            metrics.continued(way);
            Turn::On(stretch(events, *answer, lease))
        }
        Went::Left(e) => Turn::Over(Err(Broken::Client(e)), None),
        Went::Ended => end_at_length(session, ctx, onward, events).await,
        Went::Failed => {
            ctx.cut = Some("failed");
            over(session, ctx, events, result, None).await
        }
    }
}

/// The endpoint drains, and its time is over, or it refuses connects: the stream is left to another that takes it. Until
/// one does, and where none does, it keeps its place, for its engine may still serve it.
async fn move_on(
    session: &mut Session,
    ctx: &mut RequestCtx,
    onward: &Onward<'_>,
    events: &mut Events,
    mut place: Place,
    why: Fault,
) -> Turn {
    let Some(continuable) = events.continuable() else {
        return Turn::Stay(place);
    };
    let kept = &mut continuable.kept;
    let wait = match why {
        Fault::Drained => Wait::Never,
        _ => {
            // No stream beside it is to be blamed alone.
            place.lease.state.cut_alone(Instant::now());
            Wait::InLine
        }
    };
    let before = (ctx.endpoint.clone(), ctx.retries, ctx.cut_at, kept.mark());
    ctx.cut_at = Some(place.lease.state.id);
    let pool = onward.pool_now();
    let others = onward.others(&pool, kept, ctx.cut_at);
    let goes = async {
        match inform(onward, kept, &pool, &others, false).await {
            true => onward.go_on(session, ctx, kept, wait).await,
            false => Went::Failed,
        }
    };
    let went = tokio::select! {
        biased;
        went = goes => went,
        () = is_missed(&mut place.connection) => Went::Failed,
    };
    match went {
        Went::On(answer, lease) => {
            tell(&place.lease, ctx, why, kept);
            onward
                .shared
                .pool_metrics(onward.pool)
                .continued(way_of(kept));
            place.lease.settle(Outcome::Neutral, Instant::now());
            Turn::On(stretch(events, *answer, lease))
        }
        Went::Left(e) => Turn::Over(Err(Broken::Client(e)), Some(place)),
        Went::Ended => {
            place.lease.settle(Outcome::Neutral, Instant::now());
            end_at_length(session, ctx, onward, events).await
        }
        Went::Failed => {
            let mark;
            (ctx.endpoint, ctx.retries, ctx.cut_at, mark) = before;
            kept.back_to(mark);
            Turn::Stay(place)
        }
    }
}

/// Ready when the client has waited for long enough for what the engine still says.
async fn is_missed(connection: &mut Connection) {
    sleep(LEAVING).await;
    if !connection.readable().await {
        // It will say nothing more: whoever is asked may take their time.
        pending().await
    }
}

/// The answer has as many tokens as it may have, and lacks its end.
async fn end_at_length(
    session: &mut Session,
    ctx: &mut RequestCtx,
    onward: &Onward<'_>,
    events: &mut Events,
) -> Turn {
    onward.shared.pool_metrics(onward.pool).continued("end");
    let end = events
        .continuable()
        .map(|continuable| continuable.kept.end_at_length());
    let end = events.renamed(end.unwrap_or_default());
    Turn::Over(stream::write(session, ctx, end).await, None)
}

/// Asks `asked`, endpoints of `pool`, for the ids that have to be known before an engine goes on; false where it cannot
/// without them. `must`: it has said something else without them.
async fn inform(
    onward: &Onward<'_>,
    kept: &mut Kept,
    pool: &Pool,
    asked: &[usize],
    must: bool,
) -> bool {
    if kept.needs_end_of_reasoning() {
        let ids = ids_of(END_OF_REASONING, onward, pool, asked).await;
        match ids.as_deref() {
            Some([id]) => kept.reasoning_ends_with(*id),
            _ => return false,
        }
    }
    let Some(text) = kept.text_to_tokenize() else {
        return true;
    };
    match ids_of(text, onward, pool, asked).await {
        Some(ids) => kept.tokenized(&ids),
        None => return !must,
    }
    true
}

/// By the first of the endpoints that answers.
async fn ids_of(text: &str, onward: &Onward<'_>, pool: &Pool, asked: &[usize]) -> Option<Vec<u32>> {
    for index in asked {
        let endpoint = &pool.endpoints[*index];
        let ids = tokenize(endpoint, onward.model(endpoint), text).await;
        if ids.is_some() {
            return ids;
        }
    }
    None
}

fn way_of(kept: &Kept) -> &'static str {
    if kept.is_by_ids() { "ids" } else { "text" }
}

fn tell(lease: &Lease, ctx: &RequestCtx, fault: Fault, kept: &Kept) {
    warn!(
        "endpoint {}: {} in the middle of an answer, which is to go on elsewhere by {} (request {})",
        lease.endpoint().name,
        fault.reason(),
        way_of(kept),
        String::from_utf8_lossy(ctx.request_id.as_bytes()),
    );
}

/// Nobody goes on: what the engine said last is shown after all.
async fn over(
    session: &mut Session,
    ctx: &mut RequestCtx,
    events: &mut Events,
    result: Shown,
    place: Option<Place>,
) -> Turn {
    let word = events.take_last_word();
    match stream::write(session, ctx, word).await {
        Ok(()) => Turn::Over(result, place),
        client => Turn::Over(client, place),
    }
}

fn stretch(events: &mut Events, answer: Answer, lease: Lease) -> Stretch {
    let Answer {
        connection,
        held,
        is_whole,
        events: next,
        failed,
        ..
    } = answer;
    let mut piece = Bytes::new();
    if let Some(next) = next {
        *events = events.go_on(next);
        piece = events.dress_renamed(joined(&held));
    }
    Stretch {
        place: Place::new(connection, lease),
        piece,
        is_whole,
        failed,
    }
}

/// How the endpoint is judged whose stream was cut so: a recall was judged by whoever called it.
pub fn outcome_of(fault: Fault) -> Outcome {
    match fault {
        Fault::ConnectRefused | Fault::Hung | Fault::Drained => Outcome::Neutral,
        _ => Outcome::Failed(fault),
    }
}
