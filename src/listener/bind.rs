//! Binding every socket before anything is served, so that a port that is taken is one error at once.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::{Listen, ListenAddress};

use super::Role;

/// As long as the kernel allows (`net.core.somaxconn` caps it).
const BACKLOG: i32 = 65_535;
/// nginx and the admin API: owner and group only.
const ADMIN_SOCKET_MODE: u32 = 0o660;
/// nginx gives its Unix sockets 0666: whoever may enter the directory may connect.
const PUBLIC_SOCKET_MODE: u32 = 0o666;

/// A bound, listening, non-blocking socket.
#[derive(Debug)]
pub struct Bound {
    pub role: Role,
    pub listen: Listen,
    pub socket: BoundSocket,
}

#[derive(Debug)]
pub enum BoundSocket {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

impl AsFd for BoundSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// A socket that could not be bound; names the address.
#[derive(Debug)]
pub struct BindError {
    role: Role,
    address: String,
    source: io::Error,
    /// The address of the process before that excludes this one.
    taken_by: Option<ListenAddress>,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.source)?;
        match (&self.taken_by, self.source.kind()) {
            (Some(other), io::ErrorKind::AddrInUse) => write!(
                f,
                "; the process that is to be replaced listens on {other}: this change needs a restart"
            ),
            (None, io::ErrorKind::AddrInUse) => {
                let key = match self.role {
                    Role::Public => "listen",
                    Role::Admin => "admin",
                };
                write!(
                    f,
                    "; another process holds it: stop that one, or change `{key}`"
                )
            }
            (_, io::ErrorKind::PermissionDenied) => f.write_str(
                "; ports below 1024 need CAP_NET_BIND_SERVICE, sockets a writable directory",
            ),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for BindError {}

impl BindError {
    pub fn is_permission(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }

    /// Names the listener of the process before that has the address.
    pub fn taken_by(mut self, other: Option<&ListenAddress>) -> Self {
        self.taken_by = other.cloned();
        self
    }
}

impl Bound {
    /// Where it listens; for TCP with the port the kernel chose.
    pub fn address(&self) -> ListenAddress {
        match &self.socket {
            BoundSocket::Tcp(listener) => match listener.local_addr() {
                Ok(address) => ListenAddress::Tcp(address),
                Err(_) => self.listen.address.clone(),
            },
            BoundSocket::Unix(_) => self.listen.address.clone(),
        }
    }

    /// A second handle on the same socket, for another worker.
    pub fn try_clone(&self) -> io::Result<Bound> {
        let socket = match &self.socket {
            BoundSocket::Tcp(listener) => BoundSocket::Tcp(listener.try_clone()?),
            BoundSocket::Unix(listener) => BoundSocket::Unix(listener.try_clone()?),
        };
        Ok(Bound {
            role: self.role,
            listen: self.listen.clone(),
            socket,
        })
    }

    /// The file of a Unix socket, to be removed when it is closed for good.
    pub fn socket_file(&self) -> Option<SocketFile> {
        match &self.listen.address {
            ListenAddress::Unix(path) => SocketFile::of(path.clone()),
            ListenAddress::Tcp(_) => None,
        }
    }
}

/// The file of a bound Unix socket.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    pub(super) fn of(path: PathBuf) -> Option<Self> {
        let identity = identity(&path)?;
        Some(Self { path, identity })
    }

    /// Removes it, unless another process has bound its own socket there meanwhile.
    pub fn remove(&self) {
        if identity(&self.path) == Some(self.identity) {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Whoever connects is refused from now on, also where another process has the listening socket too. Of TCP alone: a
/// process that still polls a Unix socket would find it readable for ever, and nothing to accept. Nobody reaches that one
/// without its file.
pub fn stop_listening(socket: &BoundSocket) {
    if let BoundSocket::Tcp(socket) = socket {
        // An error means that somebody else has done so.
        let _ = SockRef::from(socket).shutdown(Shutdown::Both);
    }
}

/// Binds and listens. A Unix socket file that nobody serves any more is replaced.
pub fn bind(listen: &Listen, role: Role) -> Result<Bound, BindError> {
    let socket = match &listen.address {
        ListenAddress::Tcp(address) => bind_tcp(*address).map(BoundSocket::Tcp),
        ListenAddress::Unix(path) => bind_unix(path, role).map(BoundSocket::Unix),
    };
    match socket {
        Ok(socket) => Ok(Bound {
            role,
            listen: listen.clone(),
            socket,
        }),
        Err(source) => Err(BindError {
            role,
            address: listen.address.to_string(),
            source,
            taken_by: None,
        }),
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // As nginx (`ipv6only=on`), so that [::]:80 and 0.0.0.0:80 can both be listed.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_unix(path: &Path, role: Role) -> io::Result<UnixListener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if is_socket {
        match UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Err(e) => return Err(e),
        }
    }
    let listener = UnixListener::bind(path)?;
    set_mode(path, role)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Who may connect to the Unix socket at `path`.
pub(super) fn set_mode(path: &Path, role: Role) -> io::Result<()> {
    let mode = match role {
        Role::Admin => ADMIN_SOCKET_MODE,
        Role::Public => PUBLIC_SOCKET_MODE,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_socket_is_removed_only_by_whom_it_belongs_to() {
        let path =
            std::env::temp_dir().join(format!("sluicegate-bind-{}.sock", std::process::id()));
        let listen = Listen {
            address: ListenAddress::Unix(path.clone()),
            tls: None,
            http2: false,
        };
        let old = bind(&listen, Role::Admin).unwrap();
        let file = old.socket_file().unwrap();
        std::fs::remove_file(&path).unwrap();
        // The inode of the old one is still in use, so the new one has another.
        let new = bind(&listen, Role::Admin).unwrap();
        file.remove();
        assert!(path.exists(), "it was the new process's");
        new.socket_file().unwrap().remove();
        assert!(!path.exists());
    }
}
