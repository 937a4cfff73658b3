//! Upgrades in place: who takes over, what clients notice of it (nothing), and who serves on when it fails.

mod failures;
mod later_death;
mod load;
mod orders;
mod sockets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loadtest::engine::{Engine, Script};
use tokio::net::TcpStream;

use crate::gateway::{Gateway, PATIENCE, PROGRAM, Start};
use crate::wire::{Answer, Wire, request};

const STREAM: &str =
    r#"{"model":"DeepSeek-R1","messages":[{"role":"user","content":"Hi"}],"stream":true}"#;
const ANSWER: &str =
    r#"{"model":"DeepSeek-R1","messages":[{"role":"user","content":"Hi"}],"max_tokens":1}"#;
const SECOND: Duration = Duration::from_secs(1);

/// An engine whose streams last `tokens` × 20 ms.
async fn engine(tokens: usize) -> Engine {
    let itl = Duration::from_millis(20);
    Engine::start(Script {
        tokens,
        itl,
        ..Script::default()
    })
    .await
    .unwrap()
}

fn is_complete(answer: &Answer) -> bool {
    answer.status == 200 && answer.is_whole && answer.body.ends_with(b"data: [DONE]\n\n")
}

fn closes(answer: &Answer) -> bool {
    answer
        .head
        .to_ascii_lowercase()
        .contains("\r\nconnection: close\r\n")
}

/// A connection that has had one answer.
async fn idle(gateway: &Gateway) -> Wire<TcpStream> {
    let mut wire = Wire::to(gateway.public).await;
    wire.send(request("GET", "/health", "", "")).await;
    let answer = wire.answer().await.unwrap();
    assert!(answer.status == 200 && !closes(&answer));
    wire
}

/// A stream whose head has come.
struct Stream(Wire<TcpStream>, String);

impl Stream {
    async fn begin(gateway: &Gateway) -> Self {
        let mut wire = Wire::to(gateway.public).await;
        wire.send(request("POST", "/v1/chat/completions", "", STREAM))
            .await;
        let (status, head) = wire.head().await.expect("a head");
        assert_eq!(status, 200);
        Self(wire, head)
    }

    async fn rest(&mut self) -> Answer {
        let head = std::mem::take(&mut self.1);
        self.0.body("POST", 200, head).await
    }
}

/// A gateway that was started by a name of its own, behind which another program can be put.
struct Installed {
    name: PathBuf,
}

impl Installed {
    fn in_place_of(start: Start) -> (Self, Start) {
        let name = start.directory().path().join("installed");
        std::os::unix::fs::symlink(PROGRAM, &name).unwrap();
        let start = start.program(&name);
        (Self { name }, start)
    }

    /// A shell's script from now on.
    fn is_script(&self, script: &str) {
        let new = self.name.with_extension("new");
        fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, &self.name).unwrap();
    }

    fn is_gone(&self) {
        fs::remove_file(&self.name).unwrap();
    }

    /// What it was.
    fn is_mended(&self) {
        let _ = fs::remove_file(&self.name);
        std::os::unix::fs::symlink(PROGRAM, &self.name).unwrap();
    }
}

/// Whether there is such a process, and it has not ended.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

fn wait_until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
}
