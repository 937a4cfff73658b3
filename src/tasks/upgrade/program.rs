//! What this process is an execution of.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The command that started this process, to be given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it was found by its name at the start, absolute. A new version that was installed there is another file.
    pub path: PathBuf,
    /// As the process was called: argv[0].
    pub name: OsString,
    pub arguments: Vec<OsString>,
}

impl Program {
    /// To be called at the start: the working directory and the file may be others later.
    ///
    /// # Errors
    /// /proc is not there, and the process was called by a name that leads nowhere.
    pub fn of_this_process() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let search = env::var_os("PATH").unwrap_or_default();
        // Not /proc/self/exe first: it has no symbolic links, by which versions are switched, and says "(deleted)" once
        // the file was replaced.
        let found = resolve(&name, &search, &env::current_dir()?);
        Ok(Self {
            path: found.map_or_else(env::current_exe, Ok)?,
            name,
            arguments: arguments.collect(),
        })
    }
}

/// What a shell would run by this name: execvp(3).
fn resolve(name: &OsStr, search: &OsStr, directory: &Path) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    let path = Path::new(name);
    if path.components().count() > 1 {
        return Some(directory.join(path)).filter(|path| is_program(path));
    }
    env::split_paths(search)
        .map(|place| directory.join(place).join(path))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_resolved_as_a_shell_does() {
        let resolve = |name: &str, search: &str, directory: &str| {
            super::resolve(OsStr::new(name), OsStr::new(search), Path::new(directory))
        };
        let sh = Some(PathBuf::from("/bin/sh"));
        assert_eq!(resolve("/bin/sh", "", "/"), sh);
        assert_eq!(resolve("bin/sh", "", "/"), sh);
        assert_eq!(resolve("./sh", "", "/bin"), Some("/bin/./sh".into()));
        assert_eq!(resolve("sh", "/nowhere:/bin", "/"), sh);
        assert_eq!(resolve("sh", "bin", "/"), sh);
        // Not one in the working directory, not a file that nobody may run, not a directory.
        assert_eq!(resolve("sh", "/nowhere", "/bin"), None);
        assert_eq!(resolve("passwd", "/etc", "/"), None);
        assert_eq!(resolve("/etc/passwd", "", "/"), None);
        assert_eq!(resolve("/bin", "", "/"), None);
        assert_eq!(resolve("", "/bin", "/"), None);
    }
}
