//! The file that names the process, for `sluicegate -s`.

use std::path::PathBuf;

use log::warn;

/// The file of this process; removed when dropped, unless another process has written its own there.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes it. That it cannot be written is said, and no reason not to serve.
    pub fn write(path: PathBuf) -> Option<PidFile> {
        if let Some(directory) = path.parent() {
            // If this fails, so does the write, and says why.
            let _ = std::fs::create_dir(directory);
        }
        let file = PidFile(path);
        file.write_again().then_some(file)
    }

    /// A process that was to succeed this one did not, but may have written its own id. The file is new also where it
    /// says the same: `-s upgrade` waits for that.
    pub fn write_again(&self) -> bool {
        let written = std::fs::write(&self.0, format!("{}\n", std::process::id()));
        if let Err(e) = &written {
            warn!(
                "no pid file: {}: {e}; `-s` will not find this process",
                self.0.display()
            );
        }
        written.is_ok()
    }
}

impl PidFile {
    /// Removes it, unless it is another process's by now.
    pub fn remove(&self) {
        let ours = std::fs::read_to_string(&self.0)
            .is_ok_and(|text| text.trim() == std::process::id().to_string());
        if ours {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        self.remove();
    }
}
