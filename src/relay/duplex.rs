//! Bytes both ways between two connections, until one of the two has no more to say.
//!
//! Neither waits for the other way: each goes on as its reader takes it. Nothing is held but what a reader
//! has not taken, which is at most one read.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// Bytes of one read, and so the most that is held for a reader that is slow.
const PIECE: usize = 16 * 1024;

thread_local! {
    static READ_INTO: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE]);
}

/// How long may be waited.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a byte, either way.
    pub silence: Duration,
    /// For the client to take something of what is there for it.
    pub client: Duration,
    /// For the engine, likewise.
    pub engine: Duration,
}

/// How it came to its end.
#[derive(Debug)]
pub enum Over {
    /// The client has ended its side, and the engine has all that came before.
    ClientEnded,
    /// The engine has, and the client has all that came before.
    EngineEnded,
    ClientLost(io::Error),
    EngineLost(io::Error),
    /// Nothing came either way for too long.
    Silent,
    /// What is there for the client was not taken.
    ClientFull,
    EngineFull,
}

/// One way.
#[derive(Debug, Default)]
pub struct Way {
    /// Read, and not yet taken.
    held: Bytes,
    /// Bytes that were taken.
    pub bytes: u64,
    has_ended: bool,
    has_written: bool,
    /// It waits for its reader.
    is_blocked: bool,
}

/// Which of the two connections of a way failed.
#[derive(Debug)]
enum Failed {
    Read(io::Error),
    Write(io::Error),
}

impl Way {
    /// `first` goes before all that will be read.
    pub fn new(first: Bytes) -> Self {
        Self {
            held: first,
            ..Self::default()
        }
    }

    /// The writer has ended its side already.
    pub fn ended(self) -> Self {
        Self {
            has_ended: true,
            ..self
        }
    }

    /// Ready once `from` has ended and `to` has everything.
    fn poll<F, T>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
    ) -> Poll<Result<(), Failed>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        loop {
            self.is_blocked = true;
            ready!(self.poll_held(cx, to)).map_err(Failed::Write)?;
            if self.has_written {
                ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Failed::Write)?;
                self.has_written = false;
            }
            self.is_blocked = false;
            if self.has_ended {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_piece(cx, from, to))?;
        }
    }

    fn poll_held<T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut T,
    ) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let taken = ready!(Pin::new(&mut *to).poll_write(cx, &self.held))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(taken);
            self.took(taken);
        }
        self.held = Bytes::new();
        Poll::Ready(Ok(()))
    }

    /// Reads once, and writes what came as far as it is taken at once.
    fn poll_piece<F, T>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
    ) -> Poll<Result<(), Failed>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        READ_INTO.with_borrow_mut(|scratch| {
            let mut piece = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut piece)).map_err(Failed::Read)?;
            let mut rest = piece.filled();
            self.has_ended = rest.is_empty();
            while !rest.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, rest) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(Failed::Write(io::ErrorKind::WriteZero.into())));
                    }
                    Poll::Ready(Ok(taken)) => {
                        rest = &rest[taken..];
                        self.took(taken);
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(Failed::Write(e))),
                }
            }
            self.held = Bytes::copy_from_slice(rest);
            Poll::Ready(Ok(()))
        })
    }

    fn took(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.has_written = true;
    }
}

/// Since when a way has stood still, and whether it moves again.
struct Standing {
    since: Instant,
    bytes: u64,
    was_blocked: bool,
}

impl Standing {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            bytes: 0,
            was_blocked: false,
        }
    }

    /// Whether it has moved since the last look.
    fn look(&mut self, way: &Way, now: Instant) -> bool {
        let has_moved = way.bytes != self.bytes;
        if has_moved || (way.is_blocked && !self.was_blocked) {
            self.since = now;
        }
        self.bytes = way.bytes;
        self.was_blocked = way.is_blocked;
        has_moved
    }
}

/// Passes bytes on. `heard` is called when the engine has said something.
pub async fn run<C, E>(
    client: &mut C,
    engine: &mut E,
    up: &mut Way,
    down: &mut Way,
    patience: Patience,
    mut heard: impl FnMut(Instant),
) -> Over
where
    C: AsyncRead + AsyncWrite + Unpin,
    E: AsyncRead + AsyncWrite + Unpin,
{
    let begun = Instant::now();
    let (mut upwards, mut downwards) = (Standing::new(begun), Standing::new(begun));
    let mut alarm = pin!(sleep_until(begun + patience.silence));
    poll_fn(|cx| {
        match down.poll(cx, engine, client) {
            Poll::Ready(Ok(())) => return Poll::Ready(Over::EngineEnded),
            Poll::Ready(Err(Failed::Read(e))) => return Poll::Ready(Over::EngineLost(e)),
            Poll::Ready(Err(Failed::Write(e))) => return Poll::Ready(Over::ClientLost(e)),
            Poll::Pending => {}
        }
        match up.poll(cx, client, engine) {
            Poll::Ready(Ok(())) => return Poll::Ready(Over::ClientEnded),
            Poll::Ready(Err(Failed::Read(e))) => return Poll::Ready(Over::ClientLost(e)),
            Poll::Ready(Err(Failed::Write(e))) => return Poll::Ready(Over::EngineLost(e)),
            Poll::Pending => {}
        }
        let now = Instant::now();
        upwards.look(up, now);
        if downwards.look(down, now) {
            heard(now);
        }
        loop {
            let now = Instant::now();
            let silent = upwards.since.max(downwards.since) + patience.silence;
            let full = |way: &Way, since: Instant, limit| way.is_blocked.then(|| since + limit);
            let client_full = full(down, downwards.since, patience.client);
            let engine_full = full(up, upwards.since, patience.engine);
            let is_past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if is_past(client_full) {
                return Poll::Ready(Over::ClientFull);
            }
            if is_past(engine_full) {
                return Poll::Ready(Over::EngineFull);
            }
            if is_past(Some(silent)) {
                return Poll::Ready(Over::Silent);
            }
            let next = [client_full, engine_full]
                .into_iter()
                .flatten()
                .fold(silent, Instant::min);
            // Looked at again when it fires: it is not moved for every piece.
            if alarm.deadline() > next || alarm.is_elapsed() {
                alarm.as_mut().reset(next);
            }
            ready!(alarm.as_mut().poll(cx));
        }
    })
    .await
}

#[cfg(test)]
mod tests;
