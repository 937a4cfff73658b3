//! The listening sockets on their way from one process to the next.
//!
//! The old process starts the new one with an end of a socket pair as its standard input, and sends each listening
//! socket through it (`SCM_RIGHTS`, unix(7)) with the address by which its configuration names it. nginx (`NGINX=…`)
//! and systemd (`LISTEN_FDS`) pass numbers of descriptors in the environment, which have to be believed; a descriptor
//! that is received belongs to whoever received it, and nothing else is inherited by mistake.
//!
//! A message is one packet (`SOCK_SEQPACKET`):
//!
//! | from | message | means |
//! |---|---|---|
//! | old | `listen` LF role LF address, and a descriptor | a listening socket |
//! | old | `drained` LF seconds LF address, or `*` for all, LF url | an endpoint that was drained by command, so long ago |
//! | old | `end` | that was the last |
//! | new | `ready` | it accepts on every socket of its configuration |
//! | new | `failed` LF reason | it does not start |
//! | old | `go` | systemd knows of the new process, and the old one accepts no more |
//! | new | `left` | a newer process serves now: that this one ends is no reason to serve again |

mod drained;

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use log::warn;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use socket2::SockRef;

use crate::config::{Listen, ListenAddress};

pub use drained::{Drained, announcements as drain_announcements};

use super::Role;
use super::bind::{Bound, BoundSocket, SocketFile, set_mode, stop_listening};

/// Set for the new process, to the process id of the old one: a process that has it by inheritance alone is started
/// by somebody else, and takes nothing over.
pub const VARIABLE: &str = "SLUICEGATE_HANDOVER";

/// Longer than any address, and than any reason that is worth a line.
const LONGEST: usize = 4096;
/// How long the new process waits for each message of the old one, which has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// The old process's end of the socket pair, which does not block, and the standard input of the new one, which does.
///
/// # Errors
/// socketpair(2): no descriptors left.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    SockRef::from(&ours).set_nonblocking(true)?;
    Ok((ours, theirs))
}

/// Sends one message, and a descriptor with it.
///
/// # Errors
/// `WouldBlock`; `BrokenPipe` when the other process is gone.
pub fn send(
    channel: &impl AsFd,
    message: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|one| [one]);
    if let Some(descriptors) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let bytes = [IoSlice::new(message)];
    rustix::net::sendmsg(channel, &bytes, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message; an empty one when the other process has closed its end, which its death does.
///
/// # Errors
/// `WouldBlock` when there is none, or none in time.
pub fn receive(channel: &impl AsFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut message = vec![0; LONGEST];
    let received = loop {
        let mut bytes = [IoSliceMut::new(&mut message)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(channel, &mut bytes, &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    message.truncate(received.bytes);
    let mut descriptor = None;
    for with_it in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = with_it {
            descriptor = descriptors.last();
        }
    }
    Ok((message, descriptor))
}

/// What the old process says of one of its sockets.
pub fn announcement(bound: &Bound) -> Vec<u8> {
    let role: &[u8] = match bound.role {
        Role::Public => b"public",
        Role::Admin => b"admin",
    };
    let mut message = [b"listen\n", role, b"\n"].concat();
    match &bound.listen.address {
        ListenAddress::Tcp(address) => message.extend(address.to_string().bytes()),
        ListenAddress::Unix(path) => {
            message.extend(b"unix:");
            message.extend(path.as_os_str().as_bytes());
        }
    }
    message
}

/// The old process's last word on its sockets.
pub const END: &[u8] = b"end";
/// The old process's word to the new one that it serves alone now.
pub const GO: &[u8] = b"go";
const READY: &[u8] = b"ready";
const FAILED: &[u8] = b"failed\n";

/// The new process's last word: it has handed over itself.
const LEFT: &[u8] = b"left";

/// Whether the new process has said, to the old one's end of the channel, that it has handed over itself.
pub fn has_left(channel: &impl AsFd) -> bool {
    receive(channel).is_ok_and(|(message, _)| message == LEFT)
}

/// What the new process came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Ready,
    /// With its own reason.
    Failed(String),
    /// It ended without a word, or said something unheard of.
    Silent,
}

impl Outcome {
    pub fn of(message: &[u8]) -> Self {
        match message.strip_prefix(FAILED) {
            Some(reason) => Self::Failed(String::from_utf8_lossy(reason).into_owned()),
            None if message == READY => Self::Ready,
            None => Self::Silent,
        }
    }
}

/// The process before this one, which serves until this one does.
#[derive(Debug)]
pub struct Predecessor(OwnedFd);

impl Predecessor {
    /// `None` when nobody wants to be replaced by this process. Standard input is /dev/null afterwards.
    pub fn of_this_process() -> Option<Self> {
        let parent = std::env::var(VARIABLE).ok()?.parse::<i32>().ok()?;
        if parent != nix::unistd::getppid().as_raw() {
            return None;
        }
        let stdin = io::stdin();
        let socket = SockRef::from(&stdin);
        if socket.r#type().ok()? != socket2::Type::SEQPACKET {
            return None;
        }
        let channel = stdin.as_fd().try_clone_to_owned().ok()?;
        let nothing = std::fs::File::open("/dev/null").ok()?;
        rustix::stdio::dup2_stdin(&nothing).ok()?;
        SockRef::from(&channel)
            .set_read_timeout(Some(PATIENCE))
            .ok()?;
        Some(Self(channel))
    }

    /// Waits for the sockets of the old process, and what else it hands over.
    ///
    /// # Errors
    /// The old process is gone, or does not send what it should.
    pub fn sockets(&self) -> io::Result<Inherited> {
        let mut inherited = Inherited::default();
        loop {
            let (message, descriptor) = receive(&self.0)?;
            if message == END {
                return Ok(inherited);
            }
            if message.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // A newer process may say more than this one knows.
            match descriptor {
                Some(fd) => inherited.sockets.extend(Left::of(&message, fd)),
                None => inherited.drained.extend(Drained::of(&message)),
            }
        }
    }

    /// Tells it why this process does not start.
    pub fn failed(&self, reason: &str) {
        let mut message = [FAILED, reason.as_bytes()].concat();
        message.truncate(LONGEST);
        // It may be gone; there is nobody else to tell.
        let _ = send(&self.0, &message, None);
    }

    /// Tells it that this process serves, and waits until it has stopped accepting. Blocks.
    pub fn ready(&self) {
        let told = send(&self.0, READY, None)
            .and_then(|()| receive(&self.0))
            .map(|(message, _)| message == GO);
        match told {
            Ok(true) => {}
            Ok(false) => warn!("the process before this one ended before it handed over"),
            Err(e) => warn!("the process before this one does not hand over: {e}"),
        }
    }

    /// Tells it that this process has handed over itself.
    pub fn left(&self) {
        // It is mostly gone.
        let _ = send(&self.0, LEFT, None);
    }
}

/// A listening socket of the process before, which nobody here has taken yet.
#[derive(Debug)]
struct Left {
    role: Role,
    /// As its configuration had it: with port 0 where any port would do.
    address: ListenAddress,
    socket: BoundSocket,
    file: Option<SocketFile>,
}

impl Left {
    fn of(message: &[u8], descriptor: OwnedFd) -> Option<Self> {
        let mut parts = message.splitn(3, |byte| *byte == b'\n');
        let (b"listen", Some(role), Some(address)) = (parts.next()?, parts.next(), parts.next())
        else {
            return None;
        };
        let role = match role {
            b"public" => Role::Public,
            b"admin" => Role::Admin,
            _ => return None,
        };
        if !SockRef::from(&descriptor).is_listener().ok()? {
            return None;
        }
        let (address, socket) = match address.strip_prefix(b"unix:") {
            Some(path) => (
                ListenAddress::Unix(OsStr::from_bytes(path).into()),
                BoundSocket::Unix(descriptor.into()),
            ),
            None => (
                ListenAddress::Tcp(std::str::from_utf8(address).ok()?.parse().ok()?),
                BoundSocket::Tcp(descriptor.into()),
            ),
        };
        let file = match &address {
            ListenAddress::Unix(path) => SocketFile::of(path.clone()),
            ListenAddress::Tcp(_) => None,
        };
        Some(Self {
            role,
            address,
            socket,
            file,
        })
    }

    fn is_bound_to(&self, address: &ListenAddress) -> bool {
        match (&self.socket, address) {
            (BoundSocket::Tcp(socket), ListenAddress::Tcp(address)) => {
                socket.local_addr().is_ok_and(|bound| bound == *address)
            }
            _ => false,
        }
    }

    /// A Unix socket whose file was removed cannot be reached any more.
    fn is_reachable(&self) -> bool {
        match &self.address {
            ListenAddress::Tcp(_) => true,
            ListenAddress::Unix(path) => {
                std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
            }
        }
    }
}

/// The sockets of the process before; none where there was no such process.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Left>,
    /// What operators drained in it.
    pub drained: Vec<Drained>,
}

impl Inherited {
    /// The socket for `listen`, if there is one. Connections that wait on it are this process's then, too.
    pub fn take(&mut self, listen: &Listen, role: Role) -> Option<Bound> {
        // Port 0 may be there more than once, and is another port each time.
        let is_one = !matches!(listen.address, ListenAddress::Tcp(address) if address.port() == 0);
        let of_name = |left: &Left| {
            left.address == listen.address && (is_one || left.role == role) && left.is_reachable()
        };
        let of_socket = |left: &Left| left.is_bound_to(&listen.address);
        let index = self
            .sockets
            .iter()
            .position(of_name)
            .or_else(|| self.sockets.iter().position(of_socket))?;
        let left = self.sockets.remove(index);
        if let (ListenAddress::Unix(path), true) = (&listen.address, left.role != role)
            && let Err(e) = set_mode(path, role)
        {
            warn!("the mode of {} cannot be changed: {e}", path.display());
        }
        Some(Bound {
            role,
            listen: listen.clone(),
            socket: left.socket,
        })
    }

    /// What of the process before keeps this one from binding `address`.
    pub fn excluding(&self, address: &ListenAddress) -> Option<&ListenAddress> {
        let mut left = self.sockets.iter();
        left.find(|left| left.address.overlaps(address))
            .map(|left| &left.address)
    }

    /// Closes what was not taken, for the process before as well, and removes the files of its Unix sockets. Only when
    /// that one has stopped accepting: until then it needs them.
    pub fn discard(self) {
        for left in &self.sockets {
            stop_listening(&left.socket);
        }
        let files = self.sockets.iter().filter_map(|left| left.file.as_ref());
        files.for_each(SocketFile::remove);
    }
}

#[cfg(test)]
mod tests;
