//! The command line of comparisons, on files: nothing is measured.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![cfg(feature = "load")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use loadtest::compare::Record;
use serde_json::{Value, json};

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loadtest-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A comparison in which a short request costs us so much more than nginx, round by round.
    fn record(&self, name: &str, ratios: &[f64]) -> PathBuf {
        let spread = |values: &[f64]| {
            let (first, last) = (values[0], values[values.len() - 1]);
            json!({ "median": values[values.len() / 2], "lower": first, "upper": last, "n": values.len() })
        };
        let ours: Vec<f64> = ratios.iter().map(|ratio| ratio * 20.0).collect();
        let theirs = vec![20.0; ratios.len()];
        let gateway = |name| json!({ "name": name, "version": "1" });
        let setup = json!({
            "logs": false, "engines": 2, "warm_up_seconds": 2.0, "duration_seconds": 5.0, "clients": 64,
            "streams": 500, "gap_streams": 200, "memory_streams": 4000, "mixed_requests": 50_000,
            "prompt_bytes": 220_000, "rate": null,
        });
        let record = json!({
            "schema": 1, "loadtest": "0.1.0", "plans": ["short"], "base": "nginx", "notes": ["a note"],
            "machine": { "processor": "Processor", "cores": 2, "kernel": "6.1" }, "setup": setup,
            "gateways": [gateway("nginx"), gateway("sluicegate")],
            "figures": [
                { "figure": "cpu_short", "gateway": "nginx", "value": spread(&theirs), "ratio": null,
                  "rounds": theirs, "ratios": [] },
                { "figure": "cpu_short", "gateway": "sluicegate", "value": spread(&ours),
                  "ratio": spread(ratios), "rounds": ours, "ratios": ratios },
            ],
        });
        self.write(name, &record)
    }

    fn write(&self, name: &str, value: &Value) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn compare(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command
        .arg("compare")
        .args(arguments.iter().map(|a| a.as_ref()));
    command.output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_regression_exits_1_and_the_page_says_so() {
    let directory = Directory::new("regression");
    let base = directory.record("base.json", &[1.20, 1.21, 1.22]);
    let now = directory.record("now.json", &[1.50, 1.51, 1.52]);
    let html = directory.0.join("page.html");
    let (code, out, err) = said(&compare(&[
        &"--from",
        &now,
        &"--against",
        &base,
        &"--html",
        &html,
    ]));
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(
        out.contains("| CPU µs a short request | sluicegate | worse | 1.21×, 1.21-1.21 | 1.51×,"),
        "{out}"
    );
    assert!(out.contains("1 figure is worse by more than 10 %"), "{out}");
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("1 figure is worse by more than 10 %"));

    for (arguments, code) in [
        (vec!["--threshold", "30%"], 0),
        (vec!["--threshold", "20"], 1),
    ] {
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"--from", &now, &"--against", &base];
        all.extend(arguments.iter().map(|a| a as &dyn AsRef<std::ffi::OsStr>));
        assert_eq!(said(&compare(&all)).0, Some(code), "{arguments:?}");
    }
    let (code, out, _) = said(&compare(&[&"--from", &base, &"--against", &now]));
    assert_eq!(code, Some(0));
    assert!(
        out.contains("No figure is worse by more than 10 %, 1 better, of 1."),
        "{out}"
    );
}

#[test]
fn what_cannot_be_compared_exits_2_before_anything_is_measured() {
    let directory = Directory::new("incomparable");
    let base = directory.record("base.json", &[1.2]);
    // The gateway's program does not exist: starting it would fail with another message.
    let gateway = "nginx=/nowhere/nginx";
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 8] = [
        &"--gateway",
        &gateway,
        &"--plans",
        &"short,token",
        &"--clients",
        &"8",
        &"--against",
        &base,
    ];
    let (code, _, err) = said(&compare(&arguments));
    assert_eq!(code, Some(2), "{err}");
    for part in [
        "machine: Processor × 2 then",
        "clients: 64 then, 8 now",
        "plans not measured then: token",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }

    for (name, value, part) in [
        (
            "older.json",
            json!({ "schema": 0 }),
            "was written by an older loadtest",
        ),
        ("other.json", json!({ "figures": [] }), "is no comparison"),
    ] {
        let file = directory.write(name, &value);
        let (code, _, err) = said(&compare(&[&"--from", &base, &"--against", &file]));
        assert_eq!(code, Some(2));
        assert!(err.contains(part) && err.contains(name), "{err}");
    }
    let (code, _, err) = said(&compare(&[&"--from", &"/nowhere.json"]));
    assert!(
        code == Some(2) && err.contains("/nowhere.json cannot be read"),
        "{err}"
    );
}

#[test]
fn a_page_that_cannot_be_written_is_named() {
    let directory = Directory::new("unwritable");
    let base = directory.record("base.json", &[1.2]);
    let (code, _, err) = said(&compare(&[
        &"--from",
        &base,
        &"--html",
        &"/nowhere/page.html",
    ]));
    assert!(
        code == Some(2) && err.contains("/nowhere/page.html cannot be written"),
        "{err}"
    );
}

#[test]
fn a_comparison_without_a_gateway_and_without_a_file_is_refused() {
    let (code, _, err) = said(&compare(&[]));
    assert!(code == Some(2) && err.contains("--gateway"), "{err}");
}

#[test]
fn what_a_test_writes_is_a_record() {
    let directory = Directory::new("record");
    let path: &Path = &directory.record("base.json", &[1.2]);
    assert_eq!(Record::read(path).unwrap().base, "nginx");
}
