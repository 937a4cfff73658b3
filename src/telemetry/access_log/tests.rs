use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::time::UNIX_EPOCH;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

fn record() -> Record<'static> {
    Record {
        time: UNIX_EPOCH + Duration::from_millis(1_795_509_909_123),
        request_id: "3f9a",
        client: "10.0.0.7",
        key: None,
        method: "POST",
        path: b"/v1/chat/completions",
        query: Some(b"a=1"),
        protocol: "HTTP/1.1",
        status: 200,
        model: None,
        pool: Some("default"),
        endpoint: Some("node0:8000"),
        attempts: 1,
        stream: true,
        bytes_in: 120,
        bytes_out: 4096,
        prompt_tokens: None,
        completion_tokens: Some(12),
        cached_tokens: None,
        estimated: false,
        queue: None,
        connect: Some(Duration::from_micros(312)),
        ttft: Some(Duration::from_micros(48_020)),
        duration: Duration::from_micros(1_250_007),
        overhead: Some(Duration::from_micros(95)),
        end: End::Complete,
        error: None,
        referer: None,
        user_agent: Some(b"OpenAI/Python \"3.54\"\n"),
    }
}

/// A directory of the test's own, gone with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!(
            "sluicegate-access-log-{}-{name}",
            std::process::id()
        ));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn lost() -> IntCounter {
    IntCounter::new("lost", "Lost lines.").unwrap()
}

fn json_log(path: &Path, dropped: &IntCounter) -> AccessLog {
    AccessLog::open(Some(path), AccessLogFormat::Json, dropped.clone()).unwrap()
}

const SECOND: Duration = Duration::from_secs(10);

#[test]
fn a_json_line_has_every_field_in_order() {
    let mut line = Vec::new();
    record().write_json(&mut line);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"time\":\"2026-11-24T08:45:09.123Z\",\"request_id\":\"3f9a\",\"client\":\"10.0.0.7\",\"key\":null,\
         \"method\":\"POST\",\"path\":\"/v1/chat/completions\",\"protocol\":\"HTTP/1.1\",\"status\":200,\
         \"model\":null,\"pool\":\"default\",\"endpoint\":\"node0:8000\",\"attempts\":1,\"stream\":true,\
         \"bytes_in\":120,\"bytes_out\":4096,\"prompt_tokens\":null,\"completion_tokens\":12,\
         \"cached_tokens\":null,\"tokens_estimated\":false,\"queue_ms\":null,\"connect_ms\":0.312,\"ttft_ms\":48.020,\
         \"duration_ms\":1250.007,\"overhead_us\":95,\"end\":\"complete\",\"error\":null}\n"
    );
}

#[test]
fn a_json_line_of_hostile_bytes_is_still_one_json_object() {
    let mut line = Vec::new();
    let hostile = Record {
        path: b"/\"\n\xff\x1b[2J\\",
        error: Some("a\u{2028}b"),
        end: End::ClientLeft,
        ..record()
    };
    hostile.write_json(&mut line);
    let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(json["path"], "/\"\n\u{fffd}\u{1b}[2J\\");
    assert_eq!(
        (json["end"].as_str(), json["error"].as_str()),
        (Some("client_left"), Some("a\u{2028}b"))
    );
    assert_eq!(
        line.iter().position(|&byte| byte == b'\n'),
        Some(line.len() - 1)
    );
}

#[test]
fn a_combined_line_is_nginxs() {
    let mut line = Vec::new();
    record().write_combined(&mut line);
    let none = Record {
        key: Some("team a"),
        query: None,
        user_agent: Some(b""),
        referer: Some(b"\xc3"),
        ..record()
    };
    none.write_combined(&mut line);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "10.0.0.7 - - [24/Nov/2026:08:45:09 +0000] \"POST /v1/chat/completions?a=1 HTTP/1.1\" 200 4096 \"-\" \
         \"OpenAI/Python \\x223.54\\x22\\x0A\"\n\
         10.0.0.7 - team a [24/Nov/2026:08:45:09 +0000] \"POST /v1/chat/completions HTTP/1.1\" 200 4096 \"\\xC3\" \
         \"-\"\n"
    );
}

#[test]
fn lines_of_many_threads_arrive_whole() {
    let (directory, dropped) = (Directory::new("threads"), lost());
    let path = directory.file("access.log");
    let log = json_log(&path, &dropped);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| log.log(&record())));
        }
    });
    assert!(log.flush(SECOND));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2000);
    assert!(
        text.lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
    assert_eq!(dropped.get(), 0);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o027, 0);
}

#[test]
fn a_line_is_written_soon_without_being_asked_for() {
    let directory = Directory::new("soon");
    let path = directory.file("access.log");
    let log = json_log(&path, &lost());
    log.log(&record());
    let deadline = Instant::now() + SECOND;
    while fs::metadata(&path).unwrap().len() == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn after_a_rotation_lines_go_to_the_new_file() {
    let directory = Directory::new("rotation");
    let (path, old) = (directory.file("access.log"), directory.file("access.log.1"));
    let log = json_log(&path, &lost());
    log.log(&record());
    assert!(log.flush(SECOND));
    fs::rename(&path, &old).unwrap();
    log.reopen().unwrap();
    log.log(&record());
    log.log(&record());
    assert!(log.flush(SECOND));
    let lines = |path| fs::read_to_string(path).unwrap().lines().count();
    assert_eq!((lines(&old), lines(&path)), (1, 2));
}

#[test]
fn a_reopening_that_fails_keeps_the_old_file() {
    let directory = Directory::new("kept");
    let below = directory.file("below");
    fs::create_dir(&below).unwrap();
    let log = json_log(&below.join("access.log"), &lost());
    let moved = directory.file("moved");
    fs::rename(&below, &moved).unwrap();
    assert!(log.reopen().is_err());
    log.log(&record());
    assert!(log.flush(SECOND));
    assert_eq!(
        fs::read_to_string(moved.join("access.log"))
            .unwrap()
            .lines()
            .count(),
        1
    );
}

#[test]
fn a_full_disk_costs_lines_and_no_time() {
    let dropped = lost();
    let Ok(log) = AccessLog::open(
        Some(Path::new("/dev/full")),
        AccessLogFormat::Json,
        dropped.clone(),
    ) else {
        return;
    };
    (0..100).for_each(|_| log.log(&record()));
    assert!(log.flush(SECOND));
    assert_eq!(dropped.get(), 100);
}

#[test]
fn a_pipe_that_nobody_reads_blocks_neither_requests_nor_the_end() {
    let (directory, dropped) = (Directory::new("pipe"), lost());
    let path = directory.file("pipe");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    assert!(
        AccessLog::open(Some(&path), AccessLogFormat::Json, dropped.clone()).is_err(),
        "no reader yet"
    );
    let mut reader = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .unwrap();
    let log = json_log(&path, &dropped);
    let lines = 30_000;
    let begin = Instant::now();
    (0..lines).for_each(|_| log.log(&record()));
    assert!(!log.flush(Duration::from_millis(20)));
    assert!(begin.elapsed() < SECOND);
    assert!(dropped.get() > 0);
    // Once it is read, what comes is whole lines, and none is unaccounted for.
    let mut text = Vec::new();
    let deadline = Instant::now() + SECOND;
    while !log.flush(Duration::ZERO) {
        assert!(Instant::now() < deadline);
        let _ = reader.read_to_end(&mut text);
    }
    let _ = reader.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.lines()
            .all(|line| line.starts_with("{\"time\"") && line.ends_with('}'))
    );
    assert_eq!(text.lines().count() as u64 + dropped.get(), lines);
}

#[test]
fn a_log_that_is_dropped_still_writes_what_waits() {
    let directory = Directory::new("dropped");
    let path = directory.file("access.log");
    let log = json_log(&path, &lost());
    (0..10).for_each(|_| log.log(&record()));
    let shared = Arc::clone(&log.shared);
    drop(log);
    let deadline = Instant::now() + SECOND;
    while Arc::strong_count(&shared) > 1 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 10);
}
