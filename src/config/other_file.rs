//! Files that a configuration names and that are read with it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Bytes of such a file: ten thousand keys, amply.
pub(crate) const LARGEST: usize = 8 << 20;

/// What a file holds.
pub(crate) struct OtherFile {
    /// At most one more than [`LARGEST`].
    pub bytes: Vec<u8>,
    /// Whether everybody on this machine may read it.
    pub is_public: bool,
}

/// How such files are read.
pub(super) type ReadOther<'a> = dyn Fn(&Path) -> io::Result<OtherFile> + 'a;

/// Reads a regular file: a pipe would be empty at the next reload, or never end.
///
/// # Errors
/// Those of the system, and `InvalidInput` for what is no regular file.
pub(crate) fn read(path: &Path) -> io::Result<OtherFile> {
    // Before it is opened: opening a pipe waits for its other end.
    let is_regular = |metadata: &std::fs::Metadata| {
        if metadata.is_file() {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is no regular file",
            ))
        }
    };
    is_regular(&std::fs::metadata(path)?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    is_regular(&metadata)?;
    let mut bytes = Vec::new();
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(OtherFile {
        bytes,
        is_public: metadata.permissions().mode() & 0o004 != 0,
    })
}
