//! The programs that tests run. `sh .ci/setup tests` installs them; where one is missing its test says so and
//! passes, but not in CI.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the tool is, if it is. Servers' programs are not always on the PATH.
pub fn find(tool: &str) -> Option<PathBuf> {
    // <target>/tmp is for tests; what setup installs is beside it.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let found = [
        target.join("clients/bin"),
        "/usr/sbin".into(),
        "/sbin".into(),
    ]
    .into_iter()
    .chain(std::env::split_paths(&path))
    .map(|directory| directory.join(tool))
    .find(|program| program.exists());
    if found.is_none() {
        lacks(tool);
    }
    found
}

/// Says that the tool is missing; in CI it fails.
pub fn lacks(tool: &str) {
    assert!(
        std::env::var("CI").is_err(),
        "{tool} is not installed: sh .ci/setup tests"
    );
    eprintln!("left out: {tool} is not installed; `sh .ci/setup tests` installs it");
}

/// Runs to its end; what it wrote to either output.
pub fn run(program: &Path, arguments: &[&str]) -> String {
    let output =
        tokio::task::block_in_place(|| Command::new(program).args(arguments).output().unwrap());
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        output.status.success(),
        "{}: {}: {text}",
        program.display(),
        output.status
    );
    text
}
