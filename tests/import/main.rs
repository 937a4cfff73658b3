//! `sluicegate import`: every `files/NAME.conf` gives exactly `NAME.yaml` and `NAME.stderr`, every
//! file of `broken/` exactly the message beside it.
//!
//! `BLESS=1` writes them anew; read the difference before you commit it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::too_many_lines, reason = "tables of cases are long")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sluicegate::config;
use sluicegate::import::nginx::import;

mod any_input;
mod limits;
mod litellm;

/// Relative, as messages show it: tests run at the root of the package.
const FILES: &str = "tests/import/files";
const BROKEN: &str = "tests/import/broken";

fn confs(directory: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "conf"))
        .collect();
    files.sort();
    files
}

/// Compares `said` with the file, or writes it there.
fn compare(expected: &Path, said: &str, wrong: &mut Vec<String>) {
    // Relative files become absolute ones.
    let said = said.replace(env!("CARGO_MANIFEST_DIR"), "/ROOT");
    if std::env::var_os("BLESS").is_some() {
        fs::write(expected, &said).unwrap();
    }
    let wanted = fs::read_to_string(expected).unwrap_or_default();
    if said != wanted {
        let name = expected.display();
        wrong.push(format!("{name}\n--- expected\n{wanted}+++ said\n{said}"));
    }
}

fn lines(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        writeln!(text, "{line}").unwrap();
    }
    text
}

/// A directory for one test, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("import-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// What importing `content` says, without the directory.
    fn said(&self, content: impl AsRef<[u8]>) -> String {
        let path = self.write("nginx.conf", content);
        let broken = import(&path, None).expect_err("it cannot be imported");
        lines(&broken.lines).replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The upstream that a file's first line asks for: `# --upstream NAME`.
fn wanted(path: &Path) -> Option<String> {
    let text = fs::read(path).unwrap();
    let first = text.split(|b| *b == b'\n').next().unwrap();
    let first = String::from_utf8_lossy(first).into_owned();
    first.strip_prefix("# --upstream ").map(str::to_owned)
}

#[test]
fn every_file_gives_its_configuration_and_what_was_not_carried() {
    let mut wrong = Vec::new();
    let files = confs(FILES);
    assert!(files.len() >= 15, "{}", files.len());
    for path in &files {
        let imported = import(path, wanted(path).as_deref())
            .unwrap_or_else(|broken| panic!("{}", broken.lines.join("\n")));
        compare(&path.with_extension("yaml"), &imported.yaml, &mut wrong);
        compare(
            &path.with_extension("stderr"),
            &lines(&imported.notes),
            &mut wrong,
        );
        let name = path.display().to_string();
        if let Err(mistakes) = config::parse_str(&imported.yaml, &name, Path::new("/"), &|_| None) {
            panic!("{mistakes}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_broken_file_fails_with_its_exact_message() {
    let mut wrong = Vec::new();
    let files = confs(BROKEN);
    assert!(files.len() >= 20, "{}", files.len());
    for path in &files {
        let said = match import(path, wanted(path).as_deref()) {
            Ok(_) => "is imported\n".to_owned(),
            Err(broken) => lines(&broken.lines),
        };
        assert!(!said.contains("is imported"), "{}", path.display());
        compare(&path.with_extension("stderr"), &said, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_expected_of_a_file_that_is_not_there() {
    for directory in [FILES, BROKEN] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let is_expected = path
                .extension()
                .is_some_and(|e| e == "stderr" || e == "yaml");
            if is_expected {
                assert!(path.with_extension("conf").exists(), "{}", path.display());
            }
        }
    }
}

/// The guide's file, in both of its forms, is three lines here.
#[test]
fn the_guides_nginx_conf_is_what_the_example_for_it_says() {
    let example = config::load(Path::new("conf/examples/guide.yaml"), &|_| None).unwrap();
    for name in ["guide", "guide-repository"] {
        let imported = import(&Path::new(FILES).join(name).with_extension("conf"), None).unwrap();
        assert_eq!(
            imported.yaml,
            "listen: 80\nendpoints: [node0:8000, node1:8000]\nexpose: all\n"
        );
        let mut config = config::parse_str(&imported.yaml, "", Path::new("/"), &|_| None).unwrap();
        config.file.clone_from(&example.file);
        assert_eq!(config, example);
    }
}
