//! The old process's part of an upgrade: it starts the new one, gives it the listening sockets, and waits until it
//! serves.

mod program;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use log::warn;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

use crate::listener::Bound;
use crate::listener::handover::{self, Outcome};

pub use program::Program;

/// How long the new process may take until it serves. It looks names up and probes every endpoint once, each bounded.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long one that has said that it does not start may take to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A process that is to take over.
#[derive(Debug)]
pub struct Successor {
    child: Child,
    pid: u32,
    /// Not of datagrams, but tokio has no type of its own for `SOCK_SEQPACKET`, and only waits here.
    channel: UnixDatagram,
}

/// Why nothing was taken over.
#[derive(Debug)]
pub enum Failure {
    /// It could not be started.
    NotStarted(io::Error),
    /// It ended: by itself, in its own words if it had any, and with this status if that is known.
    Ended(Option<String>, Option<ExitStatus>),
    /// It did not serve in time.
    Late,
    /// A container ends with its process 1, whoever else runs in it.
    Container,
    /// This process was told to stop meanwhile.
    CalledOff,
    /// The sockets could not be sent, or its answer not be read.
    Channel(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(e) => write!(f, "it could not be started: {e}"),
            Self::Ended(Some(reason), _) => f.write_str(reason),
            Self::Ended(None, Some(status)) => {
                write!(
                    f,
                    "it ended with {status}; the lines before this one are its own"
                )
            }
            Self::Ended(None, None) => f.write_str("it closed its standard input and went on"),
            Self::Late => write!(f, "it did not serve within {} s", DEADLINE.as_secs()),
            Self::Container => f.write_str(
                "a container ends with its process 1, which this is: start a new container instead",
            ),
            Self::CalledOff => f.write_str("it is called off, as this process is to stop"),
            Self::Channel(e) => write!(f, "the sockets could not be handed over: {e}"),
        }
    }
}

impl Successor {
    /// Starts it.
    ///
    /// # Errors
    /// There is no such program any more, or it cannot be run.
    pub fn start(program: &Program) -> Result<Self, Failure> {
        if std::process::id() == 1 {
            return Err(Failure::Container);
        }
        let (ours, theirs) = handover::channel().map_err(Failure::NotStarted)?;
        let channel = UnixDatagram::from_std(ours.into()).map_err(Failure::NotStarted)?;
        let child = Command::new(&program.path)
            .arg0(&program.name)
            .args(&program.arguments)
            .stdin(Stdio::from(theirs))
            .env(handover::VARIABLE, std::process::id().to_string())
            // It names this process; without it the watchdog is for whoever asks (sd_watchdog_enabled(3)).
            .env_remove("WATCHDOG_PID")
            .spawn()
            .map_err(|e| {
                let what = format!("{}: {e}", program.path.display());
                Failure::NotStarted(io::Error::new(e.kind(), what))
            })?;
        // It is there until it was waited for.
        let pid = child.id().unwrap_or_default();
        Ok(Self {
            child,
            pid,
            channel,
        })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Gives it the sockets and these further messages, and waits until it accepts.
    ///
    /// # Errors
    /// It does not; it may still run then, and is to be ended.
    pub async fn serves(&mut self, sockets: &[Bound], further: &[Vec<u8>]) -> Result<(), Failure> {
        tokio::time::timeout(DEADLINE, self.hand_over(sockets, further))
            .await
            .unwrap_or(Err(Failure::Late))
    }

    async fn hand_over(&mut self, sockets: &[Bound], further: &[Vec<u8>]) -> Result<(), Failure> {
        let sent = self.send(sockets, further).await;
        match sent {
            Ok(()) => {}
            // It may have said why before it ended.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            Err(e) => return Err(Failure::Channel(e)),
        }
        let mut received = self.receive().await;
        // It has ended without reading what was sent. That is told first and once, and what it said of it
        // before comes behind it.
        if matches!(&received, Err(e) if e.kind() == io::ErrorKind::ConnectionReset) {
            received = self.receive().await;
        }
        let outcome = match received {
            Ok((message, _)) => Outcome::of(&message),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Outcome::Silent,
            Err(e) => return Err(Failure::Channel(e)),
        };
        let reason = match outcome {
            Outcome::Ready => return Ok(()),
            Outcome::Failed(reason) => Some(reason),
            Outcome::Silent => None,
        };
        let ended = tokio::time::timeout(LAST_WORDS, self.child.wait()).await;
        Err(Failure::Ended(reason, ended.ok().and_then(Result::ok)))
    }

    async fn receive(&self) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
        self.channel
            .async_io(Interest::READABLE, || handover::receive(&self.channel))
            .await
    }

    async fn send(&self, sockets: &[Bound], further: &[Vec<u8>]) -> io::Result<()> {
        for socket in sockets {
            let message = handover::announcement(socket);
            self.say(&message, Some(socket.socket.as_fd())).await?;
        }
        for message in further {
            self.say(message, None).await?;
        }
        self.say(handover::END, None).await
    }

    async fn say(&self, message: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.channel
            .async_io(Interest::WRITABLE, || {
                handover::send(&self.channel, message, descriptor)
            })
            .await
    }

    /// Tells it that it serves alone now.
    ///
    /// # Errors
    /// It is gone already.
    pub fn go(&self) -> io::Result<()> {
        handover::send(&self.channel, handover::GO, None)
    }

    /// Resolves when it has ended.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Whether it has handed over to a newer process, now that it has ended.
    pub fn has_left(&self) -> bool {
        handover::has_left(&self.channel)
    }

    /// Ends it, if it is there.
    pub async fn kill(mut self) {
        if let Err(e) = self.child.kill().await {
            warn!("process {} could not be ended: {e}", self.pid);
        }
    }
}
