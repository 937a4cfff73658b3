//! Listening sockets and the threads behind them.
//!
//! Every worker is one thread with one single-threaded runtime; all workers accept from the same
//! sockets (nginx's model), and a worker that has run ahead hands a new connection to the one with
//! the fewest. Pingora's own listener is not used: it binds late, retries for thirty seconds, cannot
//! be handed a socket, and serves a connection on another runtime than the one that polls it.

mod beats;
mod bell;
mod bind;
mod client;
mod connection;
mod ending;
pub mod handover;
mod io;
mod stand_in;
mod tls;
mod worker;

pub use beats::Beats;
pub use bell::Bell;
pub use bind::{BindError, Bound, SocketFile, bind, stop_listening};
pub use client::one_client;
pub use connection::{ClientCounts, Connection, Phase, Role, Writes};
pub use io::ClientIo;
pub use stand_in::take_connection;
pub use tls::{CertificateError, Certificates};
pub use worker::{Service, Workers, start};
