use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::super::bind::bind;
use super::*;

fn listen(address: &str) -> Listen {
    let address = match address.strip_prefix("unix:") {
        Some(path) => ListenAddress::Unix(path.into()),
        None => ListenAddress::Tcp(address.parse().unwrap()),
    };
    Listen {
        address,
        tls: None,
        http2: false,
    }
}

fn bound(address: &str, role: Role) -> Bound {
    bind(&listen(address), role).unwrap()
}

fn port(bound: &Bound) -> String {
    bound.address().to_string()
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("sluicegate-handover-{}-{name}", std::process::id()))
}

/// The two processes, in one.
fn pair() -> (OwnedFd, Predecessor) {
    let (ours, theirs) = channel().unwrap();
    (ours, Predecessor(theirs))
}

fn handed_over(sockets: &[Bound]) -> Inherited {
    let (old, new) = pair();
    for socket in sockets {
        let descriptor = Some(socket.socket.as_fd());
        send(&old, &announcement(socket), descriptor).unwrap();
    }
    send(&old, END, None).unwrap();
    new.sockets().unwrap()
}

#[test]
fn each_listener_gets_the_socket_of_its_address_and_the_rest_is_left() {
    let sockets = [
        bound("127.0.0.1:0", Role::Public),
        bound("127.0.0.1:0", Role::Public),
        bound("127.0.0.1:0", Role::Admin),
    ];
    let [first, second, admin] = [0, 1, 2].map(|n| port(&sockets[n]));
    let mut inherited = handed_over(&sockets);
    drop(sockets);
    // By the port that it got, as somebody may have written it down meanwhile.
    let taken = inherited.take(&listen(&second), Role::Public).unwrap();
    assert_eq!(port(&taken), second);
    // Any port: that of the same role, once.
    let any = listen("127.0.0.1:0");
    let taken_admin = inherited.take(&any, Role::Admin).unwrap();
    assert_eq!(port(&taken_admin), admin);
    assert!(inherited.take(&any, Role::Admin).is_none());
    assert!(
        inherited
            .take(&listen("127.0.0.1:1"), Role::Public)
            .is_none()
    );
    // It is the socket itself: who connects now is accepted here.
    let BoundSocket::Tcp(socket) = &taken.socket else {
        panic!("a TCP socket");
    };
    let client = std::net::TcpStream::connect(&second).unwrap();
    socket.set_nonblocking(false).unwrap();
    assert_eq!(socket.accept().unwrap().1, client.local_addr().unwrap());
    inherited.discard();
    assert!(std::net::TcpStream::connect(&first).is_err());
}

#[test]
fn the_files_of_unix_sockets_stay_with_who_takes_them() {
    let (kept, left, gone) = (path("kept"), path("left"), path("gone"));
    let address = |path: &PathBuf| format!("unix:{}", path.display());
    let sockets = [&kept, &left, &gone].map(|path| bound(&address(path), Role::Public));
    std::fs::remove_file(&gone).unwrap();
    let mut inherited = handed_over(&sockets);
    let taken = inherited.take(&listen(&address(&kept)), Role::Admin);
    let mode = std::os::unix::fs::PermissionsExt::mode(&kept.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660, "it is an admin's now");
    assert!(
        inherited
            .take(&listen(&address(&gone)), Role::Public)
            .is_none()
    );
    // Another's socket, which has taken the place of the one that is left.
    let other = UnixListener::bind(&gone).unwrap();
    inherited.discard();
    assert!(kept.exists() && !left.exists() && gone.exists());
    drop((taken, other));
    std::fs::remove_file(kept).unwrap();
    std::fs::remove_file(gone).unwrap();
}

#[test]
fn what_is_in_the_way_of_an_address_is_known() {
    let sockets = [bound("127.0.0.1:0", Role::Public)];
    let ListenAddress::Tcp(address) = sockets[0].address() else {
        panic!("a TCP socket");
    };
    let named = Bound {
        listen: listen(&address.to_string()),
        ..sockets[0].try_clone().unwrap()
    };
    let inherited = handed_over(&[named]);
    let everywhere = ListenAddress::Tcp(([0, 0, 0, 0], address.port()).into());
    let excluding = inherited.excluding(&everywhere).unwrap().to_string();
    assert_eq!(excluding, address.to_string());
    assert!(
        inherited
            .excluding(&listen("127.0.0.1:1").address)
            .is_none()
    );
}

/// A newer old process may say what this one does not know, and a foreign one anything.
#[test]
fn what_is_not_understood_is_passed_over() {
    let (old, new) = pair();
    let listener = bound("127.0.0.1:0", Role::Public);
    let file = std::fs::File::open("/dev/null").unwrap();
    let socket = Some(listener.socket.as_fd());
    for (message, descriptor) in [
        (&b"colour\ngreen"[..], None),
        (b"listen\npublic\n127.0.0.1:80", None),
        (b"listen\npublic\n127.0.0.1:80", Some(file.as_fd())),
        (b"listen\npublic", socket),
        (b"listen\neverybody\n127.0.0.1:80", socket),
        (b"listen\npublic\nlocalhost:80", socket),
        (b"listen\npublic\n\xff", socket),
        (b"listen\npublic\n127.0.0.1:80", socket),
    ] {
        send(&old, message, descriptor).unwrap();
    }
    send(&old, END, None).unwrap();
    assert_eq!(new.sockets().unwrap().sockets.len(), 1);
}

#[test]
fn the_end_of_either_process_is_seen() {
    let (old, new) = pair();
    new.failed("no");
    let (message, _) = receive(&old).unwrap();
    assert_eq!(Outcome::of(&message), Outcome::Failed("no".into()));
    let unread = receive(&old).unwrap_err();
    assert_eq!(unread.kind(), io::ErrorKind::WouldBlock);
    drop(new);
    let (message, _) = receive(&old).unwrap();
    assert_eq!(Outcome::of(&message), Outcome::Silent);
    assert_eq!(
        send(&old, GO, None).unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );

    let (old, new) = pair();
    drop(old);
    let gone = new.sockets().unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::UnexpectedEof);
}
