//! One client connection: requests in, one after the other, and the rules by which it ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::http::{self, Chunked, Framing, Head, Invalid};
use super::io::Io;
use super::responder;
use super::routes;
use super::script::{Death, Fault, Recorded, Script};
use super::shared::{Shared, State, lock};
use super::text;

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Keep,
    Close,
    Reset,
}

/// A request whose body has been read.
#[derive(Debug)]
pub(super) struct Request {
    pub head: Head,
    pub body: Vec<u8>,
    pub arrival: Instant,
}

/// The client is gone, or half of it: uvicorn takes a half-close for a disconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

pub(super) struct Connection {
    pub shared: Arc<Shared>,
    pub state: watch::Receiver<State>,
    io: Io,
    /// Bytes read and not yet used.
    input: Vec<u8>,
    number: u64,
    /// A fault asked for small writes.
    split: Option<usize>,
    close_on_reuse: bool,
}

/// How a request could not be read.
enum Unread {
    /// The connection ended, idle too long, or must not be used again.
    Ended,
    Invalid,
    Faulty(End),
}

impl From<io::Error> for Unread {
    fn from(_: io::Error) -> Self {
        Self::Ended
    }
}

impl From<Invalid> for Unread {
    fn from(_: Invalid) -> Self {
        Self::Invalid
    }
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, io: Io, number: u64) -> Self {
        let state = shared.state.subscribe();
        Self {
            shared,
            state,
            io,
            input: Vec::new(),
            number,
            split: None,
            close_on_reuse: false,
        }
    }

    /// Serves until the connection ends.
    pub(super) async fn serve(mut self) {
        match self.shared.next_fault(&self.shared.script(), true) {
            Some(Fault::ResetOnAccept) => return self.io.reset_on_close(),
            Some(_) => return,
            None => {}
        }
        let mut used = false;
        let end = loop {
            match self.read_request(used).await {
                Ok((request, script, fault)) => {
                    used = true;
                    match routes::answer(&mut self, request, &script, fault).await {
                        Ok(End::Keep) => {}
                        Ok(end) => break end,
                        Err(Gone) => break End::Close,
                    }
                }
                Err(Unread::Ended) => break End::Close,
                Err(Unread::Faulty(end)) => break end,
                Err(Unread::Invalid) => {
                    let mut out = Vec::new();
                    responder::invalid_request(&self.shared, &mut out);
                    _ = self.write(&out).await;
                    break End::Close;
                }
            }
        };
        if end == End::Reset {
            self.io.reset_on_close();
        }
    }

    async fn read_request(
        &mut self,
        used: bool,
    ) -> Result<(Request, Arc<Script>, Option<Fault>), Unread> {
        let head_end = self.read_head(used).await?;
        let script = self.shared.script();
        let raw_head: Vec<u8> = self.input.drain(..head_end).collect();
        let head = Head::parse(&raw_head)?;
        let inference = head.method == "POST" && routes::is_inference(head.path(), Some(&script));
        let fault = if inference {
            self.shared.next_fault(&script, false)
        } else {
            None
        };
        if fault == Some(Fault::ResetOnHead) {
            return Err(Unread::Faulty(End::Reset));
        }
        if head.expects_continue && routes::is_known(head.path(), &script) {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let keep = script.record > 0 || !(script.fixed && head.method == "POST");
        let mut body = Vec::new();
        let read = self.read_body(head.body, keep, &mut body).await;
        if script.record > 0 {
            self.record(&script, &head, raw_head, &body, read.is_ok());
        }
        read?;
        if self.input.is_empty() && self.input.capacity() > 16 << 10 {
            self.input = Vec::new();
        }
        Ok((
            Request {
                head,
                body,
                arrival: Instant::now(),
            },
            script,
            fault,
        ))
    }

    /// Reads until a whole head is there. uvicorn's keep-alive timer runs only until the first byte.
    async fn read_head(&mut self, used: bool) -> Result<usize, Unread> {
        let keep_alive = self.shared.script().keep_alive;
        loop {
            if self.close_on_reuse && !self.input.is_empty() {
                return Err(Unread::Ended);
            }
            if let Some(end) = http::head_end(&self.input) {
                return Ok(end);
            }
            if self.input.len() > 1 << 20 {
                return Err(Unread::Invalid);
            }
            let count = match (self.input.is_empty(), used) {
                (true, true) => timeout(keep_alive, self.read_unless_dying())
                    .await
                    .map_err(|_| Unread::Ended)??,
                (true, false) => self.read_unless_dying().await?,
                (false, _) => self.read().await?,
            };
            if count == 0 {
                return Err(Unread::Ended);
            }
        }
    }

    /// As [`Self::read`], between two requests: uvicorn closes such a connection when it is told to end.
    async fn read_unless_dying(&mut self) -> io::Result<usize> {
        let mut state = self.state.clone();
        let freezes = |state: &State| matches!(state, State::Dying(Death::Freeze));
        tokio::select! {
            biased;
            read = self.read() => read,
            () = async { drop(state.wait_for(freezes).await) } => Ok(0),
        }
    }

    async fn read_body(
        &mut self,
        framing: Framing,
        keep: bool,
        body: &mut Vec<u8>,
    ) -> Result<(), Unread> {
        match framing {
            Framing::Length(length) => {
                if keep {
                    body.reserve(length.min(1 << 20));
                }
                let mut left = length;
                loop {
                    let take = left.min(self.input.len());
                    if keep {
                        body.extend_from_slice(&self.input[..take]);
                    }
                    self.input.drain(..take);
                    left -= take;
                    if left == 0 {
                        return Ok(());
                    }
                    self.read_more(left).await?;
                }
            }
            Framing::Chunked => {
                let mut decoder = Chunked::default();
                let mut add = |bytes: &[u8]| {
                    if keep {
                        body.extend_from_slice(bytes);
                    }
                };
                while !decoder.feed(&mut self.input, &mut add)? {
                    self.read_more(64 << 10).await?;
                }
                Ok(())
            }
        }
    }

    async fn read_more(&mut self, wanted: usize) -> Result<(), Unread> {
        self.input.reserve(wanted.clamp(4 << 10, 256 << 10));
        if self.read().await? == 0 {
            Err(Unread::Ended)
        } else {
            Ok(())
        }
    }

    /// Reads once into `input`; 0 is the end.
    async fn read(&mut self) -> io::Result<usize> {
        loop {
            self.io.readable().await?;
            if self.input.capacity() - self.input.len() < 2 << 10 {
                self.input.reserve(8 << 10);
            }
            match self.io.try_read(&mut self.input) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// Bytes read and not yet used.
    pub(super) fn input(&self) -> &[u8] {
        &self.input
    }

    pub(super) fn use_input(&mut self, bytes: usize) {
        self.input.drain(..bytes);
    }

    /// Waits for more of them.
    pub(super) async fn read_some(&mut self) -> Result<(), Gone> {
        match self.read().await? {
            0 => Err(Gone),
            _ => Ok(()),
        }
    }

    fn record(&self, script: &Script, head: &Head, raw_head: Vec<u8>, body: &[u8], complete: bool) {
        let recorded = Recorded {
            method: head.method.clone(),
            target: head.target.clone(),
            version: head.version.clone(),
            headers: head.headers.clone(),
            head: raw_head.into(),
            body_len: body.len(),
            body_hash: text::hash(body),
            body: (body.len() <= script.record_body).then(|| Bytes::copy_from_slice(body)),
            connection: self.number,
            complete,
        };
        lock(&self.shared.recorder).push(recorded, script.record);
    }

    /// Ready when the client is gone. Bytes of a next request are kept for later.
    pub(super) async fn gone(&mut self) -> Gone {
        loop {
            if self.input.len() > 64 << 10 {
                return std::future::pending().await;
            }
            match self.read().await {
                Ok(0) | Err(_) => return Gone,
                Ok(_) => {}
            }
        }
    }

    /// Waits for a time while watching the client.
    pub(super) async fn wait(&mut self, time: Duration) -> Result<(), Gone> {
        tokio::select! {
            gone = self.gone() => Err(gone),
            () = sleep(time) => Ok(()),
        }
    }

    /// Writes everything, in small pieces if a fault says so.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(size) = self.split else {
            return self.io.write(bytes).await;
        };
        for piece in bytes.chunks(size.max(1)) {
            self.io.write(piece).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    pub(super) fn split_writes(&mut self, size: Option<usize>) {
        self.split = size;
    }

    pub(super) fn close_on_reuse(&mut self) {
        self.close_on_reuse = true;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.shared.resetting.load(Relaxed) {
            self.io.reset_on_close();
        }
        lock(&self.shared.connections).remove(&self.number);
    }
}
