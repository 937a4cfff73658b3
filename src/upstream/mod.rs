//! The upstream leg: an HTTP/1.1 client for inference engines, made for relaying.
//!
//! One exchange, in order: [`IdlePool::take`] or [`Connection::connect`], a head built by
//! [`RequestHead`], [`Connection::send`], [`Connection::read_head`], [`Connection::read_body`] until
//! `None`, [`IdlePool::put`]. There is no task, no channel and no buffer behind a connection:
//! dropping it at any point cancels the exchange and closes the socket.
//!
//! * [`target`], [`connect`], [`tls`]: where to go and how to get there
//! * [`idle_pool`]: connections between two exchanges
//! * [`request_head`]: what we say, built and never forwarded
//! * [`response_head`], [`chunked`], [`decoder`]: what we hear, sans I/O, and strict
//! * [`connection`]: the decoder on a socket
//! * [`tunnel`]: what is left of a connection when HTTP is over
//!
//! Nothing here knows the rest of the gateway.

pub mod chunked;
pub mod connect;
pub mod connection;
pub mod decoder;
pub mod error;
pub mod idle_pool;
pub mod lent;
pub mod request_head;
pub mod response_head;
pub mod target;
pub mod tls;
pub mod tunnel;

pub use connect::reach;
pub use connection::{Came, Connection};
pub use decoder::{HeadLimits, RequestKind};
pub use error::{ConnectError, HeadError, ReadError};
pub use idle_pool::{IdlePool, set_worker};
pub use lent::Lent;
pub use request_head::{RequestHead, connection_options, is_hop_by_hop};
pub use response_head::ResponseHead;
pub use target::{Address, Target};
pub use tls::{TlsClient, TlsError};
pub use tunnel::Tunnel;

#[cfg(test)]
#[path = "../../tests/fuzz/src/differential.rs"]
mod differential;
