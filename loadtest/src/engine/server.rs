//! The listener.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::time::sleep;

use super::connection::Connection;
use super::io::Io;
use super::script::Listen;
use super::shared::{Shared, lock};

const BACKLOG: u32 = 4096;

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Binds, also to a port whose connections of a moment ago still linger, and over a stale unix socket.
pub(super) async fn bind(listen: &Listen) -> Result<Listener> {
    match listen {
        Listen::Tcp(address) => Ok(Listener::Tcp(bound(*address)?.listen(BACKLOG)?)),
        Listen::Unix(path) => {
            if let Err(error) = std::fs::remove_file(path)
                && error.kind() != ErrorKind::NotFound
            {
                return Err(Error::new(
                    error.kind(),
                    format!("{}: {error}", path.display()),
                ));
            }
            let listener = UnixListener::bind(path).map_err(|error| {
                Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
            Ok(Listener::Unix(listener))
        }
    }
}

/// A socket on this address that does not listen: connects are refused there.
pub(super) fn bound(address: SocketAddr) -> Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket
        .bind(address)
        .map_err(|error| Error::new(error.kind(), format!("{address}: {error}")))?;
    Ok(socket)
}

impl Listener {
    pub(super) fn address(&self) -> Result<Listen> {
        match self {
            Self::Tcp(listener) => Ok(Listen::Tcp(listener.local_addr()?)),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().ok_or(ErrorKind::AddrNotAvailable)?;
                Ok(Listen::Unix(path.to_owned()))
            }
        }
    }

    async fn accept(&self) -> Result<Io> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // As asyncio does. It fails only on a connection that is gone already.
                _ = stream.set_nodelay(true);
                Ok(Io::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Io::Unix(listener.accept().await?.0)),
        }
    }
}

/// Accepts until it is aborted.
pub(super) async fn accept(shared: Arc<Shared>, listener: Listener) {
    loop {
        let Ok(io) = listener.accept().await else {
            // Out of descriptors, or a connection that went before it was taken.
            sleep(Duration::from_millis(5)).await;
            continue;
        };
        let number = shared.accepts.fetch_add(1, Relaxed) + 1;
        let connection = Connection::new(Arc::clone(&shared), io, number);
        // The lock is held over the spawn, so that a connection that ends at once is not entered after its end.
        let mut connections = lock(&shared.connections);
        let task = tokio::spawn(connection.serve());
        connections.insert(number, task.abort_handle());
    }
}
