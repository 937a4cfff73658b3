//! Requests of the gateway's own to its endpoints. They go over its own upstream leg, as those of clients do, on a
//! connection of their own.

use std::fmt;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::pool::EndpointState;
use crate::upstream::{
    ConnectError, Connection, HeadError, HeadLimits, ReadError, RequestHead, ResponseHead,
};

/// What an endpoint is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub path: &'a str,
    pub accept: &'a str,
    /// JSON to be posted; `None`: a GET.
    pub json: Option<&'a Bytes>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    Unsendable(HeadError),
    Connect(ConnectError),
    Read(ReadError),
    Status(u16),
    /// Longer than so many bytes.
    TooLong(usize),
    /// It says something else than what was asked for; how.
    Odd(String),
    TimedOut,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsendable(error) => error.fmt(f),
            Self::Connect(error) => error.fmt(f),
            Self::Read(error) => error.fmt(f),
            Self::Status(status) => write!(f, "status {status}"),
            Self::TooLong(most) => write!(f, "the answer is longer than {most} bytes"),
            Self::Odd(how) => f.write_str(how),
            Self::TimedOut => f.write_str("no answer in time"),
        }
    }
}

/// An answer whose head has come.
pub struct Reply {
    pub head: ResponseHead,
    connection: Connection,
    deadline: Instant,
}

/// Asks, with the endpoint's key, and waits for the head of the answer.
///
/// # Errors
/// There is none by `deadline`.
pub async fn ask(
    endpoint: &EndpointState,
    question: Question<'_>,
    deadline: Instant,
) -> Result<Reply, Failure> {
    let head = head(endpoint, question).map_err(Failure::Unsendable)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let mut connection = Connection::connect(&endpoint.target, left)
        .await
        .map_err(Failure::Connect)?;
    let exchange = async {
        // An early answer makes the sending fail, and is an answer.
        let body = question.json.map(std::slice::from_ref);
        let _ = connection.send(&head, body.unwrap_or_default()).await;
        connection.read_head(HeadLimits::default()).await
    };
    match timeout_at(deadline, exchange).await {
        Err(_) => Err(Failure::TimedOut),
        Ok(Err(error)) => Err(Failure::Read(error)),
        Ok(Ok(head)) => Ok(Reply {
            head,
            connection,
            deadline,
        }),
    }
}

impl Reply {
    /// Reads the rest, at most `longest` bytes, piece by piece.
    ///
    /// # Errors
    /// It is longer, breaks off or takes longer than the deadline that it was asked with.
    pub async fn read(
        mut self,
        longest: usize,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let mut length = 0;
        let exchange = async {
            while let Some(piece) = self.connection.read_body().await.map_err(Failure::Read)? {
                length += piece.len();
                if length > longest {
                    return Err(Failure::TooLong(longest));
                }
                each(&piece);
            }
            Ok(())
        };
        let read = timeout_at(self.deadline, exchange).await;
        read.unwrap_or(Err(Failure::TimedOut))
    }

    /// The rest as a whole. Anything but a 200 is a [`Failure::Status`].
    ///
    /// # Errors
    /// As of [`Self::read`].
    pub async fn whole(self, longest: usize) -> Result<Vec<u8>, Failure> {
        if self.head.status != 200 {
            return Err(Failure::Status(self.head.status));
        }
        let mut answer = Vec::new();
        self.read(longest, |piece| answer.extend_from_slice(piece))
            .await?;
        Ok(answer)
    }
}

fn head(endpoint: &EndpointState, question: Question<'_>) -> Result<Vec<u8>, HeadError> {
    let settings = endpoint.settings();
    let method = if question.json.is_some() {
        "POST"
    } else {
        "GET"
    };
    let mut head = RequestHead::start(Vec::new(), method, question.path.as_bytes())?;
    head.field("Host", &endpoint.target.authority)?;
    head.field("User-Agent", "sluicegate")?;
    head.field("Accept", question.accept)?;
    head.field("Connection", "close")?;
    if let Some(key) = &settings.api_key {
        head.field("Authorization", format!("Bearer {}", key.reveal()))?;
    }
    if question.json.is_some() {
        head.field("Content-Type", "application/json")?;
    }
    Ok(head.finish(question.json.map(|body| body.len() as u64)))
}
