//! The thread that writes the access log out.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use super::{INTERVAL, Shared};

/// What a buffer needed beyond this in a burst is given back once it needs less.
const KEPT_BUFFER: usize = 256 * 1024;

/// How often a file that takes nothing now (a pipe that is full) is tried again.
const FULL_PIPE_RETRY: Duration = Duration::from_millis(10);

/// Writes until the log is closed and nothing waits. The file may block: only this thread does.
pub(super) fn run(shared: &Shared, file: File) {
    let mut output = Output {
        file,
        torn: false,
        failing: false,
    };
    let mut lines = Vec::new();
    loop {
        let mut waiting = shared.waiting.lock();
        if waiting.lines.is_empty() && waiting.closed {
            return;
        }
        if !waiting.urgent && !waiting.closed {
            shared.wake.wait_for(&mut waiting, INTERVAL);
        }
        waiting.urgent = false;
        if let Some(file) = waiting.reopened.take() {
            output = Output {
                file,
                torn: false,
                failing: false,
            };
        }
        std::mem::swap(&mut waiting.lines, &mut lines);
        drop(waiting);
        if lines.is_empty() {
            continue;
        }
        let lost = output.write(&lines, || shared.waiting.lock().abandons_file());
        shared.dropped.inc_by(lost);
        let mut waiting = shared.waiting.lock();
        waiting.finished += lines.len() as u64;
        shared.progress.notify_all();
        drop(waiting);
        let used = lines.len();
        lines.clear();
        lines.shrink_to(KEPT_BUFFER.max(used));
    }
}

impl super::Waiting {
    /// Nobody will read what the file does not take now.
    fn abandons_file(&self) -> bool {
        self.reopened.is_some() || self.closed
    }
}

struct Output<W> {
    file: W,
    /// The last line in the file lacks its end.
    torn: bool,
    /// The last write failed, and that was said.
    failing: bool,
}

impl<W: Write> Output<W> {
    /// Writes whole lines; what the file refuses is given up. Returns how many lines were lost.
    /// `abandoned` ends the waiting for a pipe that is full.
    fn write(&mut self, lines: &[u8], abandoned: impl Fn() -> bool) -> u64 {
        if self.torn {
            match self.write_all(b"\n", &abandoned) {
                Ok(()) => self.torn = false,
                Err((_, error)) => return self.give_up(lines, 0, &error),
            }
        }
        match self.write_all(lines, &abandoned) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    log::info!("the access log is written again");
                }
                0
            }
            Err((written, error)) => self.give_up(lines, written, &error),
        }
    }

    fn write_all(
        &mut self,
        bytes: &[u8],
        abandoned: &impl Fn() -> bool,
    ) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !abandoned() => {
                    std::thread::sleep(FULL_PIPE_RETRY);
                }
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }

    fn give_up(&mut self, lines: &[u8], written: usize, error: &io::Error) -> u64 {
        self.torn |= written > 0 && lines[written - 1] != b'\n';
        if !std::mem::replace(&mut self.failing, true) {
            log::error!("the access log cannot be written, its lines are dropped: {error}");
        }
        // A line that is only partly written is lost too.
        memchr::memchr_iter(b'\n', &lines[written..]).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes, at most three at once, then is full.
    #[derive(Default)]
    struct Disk {
        content: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(3).min(self.room);
            self.room -= taken;
            self.content.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_torn_by_a_full_disk_is_ended_before_the_next_and_counted_as_lost() {
        let mut output = Output {
            file: Disk {
                room: 8,
                ..Disk::default()
            },
            torn: false,
            failing: false,
        };
        assert_eq!(output.write(b"first\nsecond\nthird\n", || false), 2);
        assert_eq!(output.write(b"fourth\n", || false), 1);
        output.file.room = 100;
        assert_eq!(output.write(b"fifth\n", || false), 0);
        assert_eq!(output.file.content, b"first\nse\nfifth\n");
    }

    #[test]
    fn a_disk_that_fills_up_between_two_lines_leaves_no_empty_one() {
        let mut output = Output {
            file: Disk {
                room: 6,
                ..Disk::default()
            },
            torn: false,
            failing: false,
        };
        assert_eq!(output.write(b"first\nsecond\n", || false), 1);
        output.file.room = 100;
        assert_eq!(output.write(b"third\n", || false), 0);
        assert_eq!(output.file.content, b"first\nthird\n");
    }
}
