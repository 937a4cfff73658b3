//! The access log: one line a request, which never holds a request up.
//!
//! The thread that served the request formats the line and appends it to a bounded buffer; one
//! thread of the log's own writes the buffer out. A disk that is full, a pipe nobody reads or a
//! closed standard output costs lines, which are counted, and nothing else.

mod record;
mod writer;

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;

pub use record::{End, Record};

use crate::config::AccessLogFormat;

/// Lines wait in at most this many bytes; beyond, they are dropped and counted. As much again may
/// be on its way to the file.
pub const BUFFER: usize = 4 * 1024 * 1024;

/// How long a line waits at most for the writer to look, so that no request has to wake it.
const INTERVAL: Duration = Duration::from_millis(50);

/// A line longer than this leaves no buffer of its size behind in its thread.
const KEPT_LINE: usize = 16 * 1024;

/// An open access log. Dropping it writes out what waits, in the background.
pub struct AccessLog {
    path: Option<PathBuf>,
    format: AccessLogFormat,
    shared: Arc<Shared>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    /// Wakes the writer before its interval is over.
    wake: Condvar,
    /// Tells those who flush that the writer has got further.
    progress: Condvar,
    dropped: IntCounter,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Bytes ever appended, and bytes ever written or given up.
    appended: u64,
    finished: u64,
    /// The file to go on with.
    reopened: Option<File>,
    /// Somebody waits: do not sleep.
    urgent: bool,
    closed: bool,
}

impl AccessLog {
    /// Opens the file (made with mode 0640 where it is missing), or standard output for `None`,
    /// and starts the writer. `dropped` counts the lines that were lost.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or the thread cannot be started. A named pipe must
    /// have a reader.
    pub fn open(
        path: Option<&Path>,
        format: AccessLogFormat,
        dropped: IntCounter,
    ) -> io::Result<Self> {
        let file = open(path)?;
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            wake: Condvar::new(),
            progress: Condvar::new(),
            dropped,
        });
        let of_writer = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer::run(&of_writer, file))?;
        Ok(Self {
            path: path.map(Path::to_owned),
            format,
            shared,
        })
    }

    /// Appends a line. Does not allocate once the thread has written a few, and never blocks for
    /// longer than another thread's copy of a line.
    pub fn log(&self, record: &Record<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            match self.format {
                AccessLogFormat::Json => record.write_json(line),
                AccessLogFormat::Combined => record.write_combined(line),
            }
            self.append(line);
            line.shrink_to(KEPT_LINE);
        });
    }

    fn append(&self, line: &[u8]) {
        let mut waiting = self.shared.waiting.lock();
        let before = waiting.lines.len();
        if before + line.len() > BUFFER {
            drop(waiting);
            self.shared.dropped.inc();
            return;
        }
        waiting.lines.extend_from_slice(line);
        waiting.appended += line.len() as u64;
        let after = waiting.lines.len();
        drop(waiting);
        if before < BUFFER / 2 && after >= BUFFER / 2 {
            self.shared.wake.notify_one();
        }
    }

    /// Opens the file again, for the old one was moved away (USR1). Lines that wait go to the new
    /// file. Standard output stays as it is.
    ///
    /// # Errors
    /// The file cannot be opened; the old one is kept.
    pub fn reopen(&self) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let file = open(Some(path)).inspect_err(|error| {
            log::error!(
                "access log {} cannot be reopened, the old file is kept: {error}",
                path.display()
            );
        })?;
        let mut waiting = self.shared.waiting.lock();
        waiting.reopened = Some(file);
        waiting.urgent = true;
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Waits until what was logged so far is written or given up, but not longer than `at_most`;
    /// true if it is. Blocks the thread.
    pub fn flush(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        let mut waiting = self.shared.waiting.lock();
        let until = waiting.appended;
        while waiting.finished < until {
            waiting.urgent = true;
            self.shared.wake.notify_one();
            if self
                .shared
                .progress
                .wait_until(&mut waiting, deadline)
                .timed_out()
            {
                return waiting.finished >= until;
            }
        }
        true
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let mut waiting = self.shared.waiting.lock();
        waiting.closed = true;
        self.shared.wake.notify_one();
    }
}

/// Never blocks on a named pipe without a reader: that is an error.
fn open(path: Option<&Path>) -> io::Result<File> {
    match path {
        Some(path) => OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path),
        // Not std's own handle: that one buffers, and is locked by others.
        None => io::stdout().as_fd().try_clone_to_owned().map(File::from),
    }
}

#[cfg(test)]
mod tests;
