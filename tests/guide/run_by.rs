//! Whether what a row of the list says runs a command really does: it is there, somebody starts it, and the command's
//! words are in it.

use crate::world::repository;

/// What runs every day, what runs before a release, and the script that takes the trial to its machine.
const STARTED: [&str; 3] = [".ci/run", ".ci/full", "tests/package/run"];

/// The test or function `place` of `file`, or all of a script where `place` is empty, runs `command`; else why not.
pub fn verify(command: &str, file: &str, place: &str) -> Result<(), String> {
    let text = code(file)?;
    let source = if file.ends_with(".rs") {
        of_test(&text, place).ok_or_else(|| format!("{file} has no test {place}"))?
    } else {
        let starts = |by: &&str| code(by).is_ok_and(|script| occurs(&script, file));
        if !STARTED.contains(&file) && !STARTED.iter().any(starts) {
            return Err(format!("none of {STARTED:?} starts {file}"));
        }
        of_function(&text, place).ok_or_else(|| format!("{file} calls no {place}"))?
    };
    let missing = words(command)
        .into_iter()
        .find(|word| !occurs(&source, word));
    missing.map_or(Ok(()), |word| {
        Err(format!(
            "{file} {place} has no {word:?}, as {command:?} has"
        ))
    })
}

/// A file of ours without the lines that are comments.
fn code(file: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(repository(file)).map_err(|e| format!("{file}: {e}"))?;
    let comment = if file.ends_with(".rs") { "//" } else { "#" };
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with(comment));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

/// The test of this name, and what of the file belongs to all tests; `None` if it is not there, or is not run.
fn of_test(text: &str, name: &str) -> Option<String> {
    let (mut shared, mut wanted) = (String::new(), None);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if !line.starts_with("#[test]") && !line.starts_with("#[tokio::test") {
            shared.push_str(line);
            shared.push('\n');
            continue;
        }
        let test: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
        let test = test.join("\n");
        if test.contains(&format!("fn {name}(")) && !test.starts_with("#[ignore") {
            wanted = Some(test);
        }
    }
    // What tests of the process call the gateway's program.
    wanted.map(|test| format!("{shared}\n{test}").replace("PROGRAM", "sluicegate"))
}

/// A function of a shell's script, which the rest of the script calls; all of the script for no name.
fn of_function(text: &str, name: &str) -> Option<String> {
    if name.is_empty() {
        return Some(text.to_owned());
    }
    let (before, rest) = text.split_once(&format!("\n{name}() {{\n"))?;
    let (body, after) = rest.split_once("\n}\n")?;
    let is_called = occurs(before, name) || occurs(after, name);
    is_called.then(|| body.to_owned())
}

/// What says which command it is: the program, what it is to do, the names of its options, and files of ours. Not the
/// values, which a test has of its own: addresses, numbers, paths elsewhere, files that are read and written.
fn words(command: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut is_first = true;
    let (command, _) = command.split_once(" > ").unwrap_or((command, ""));
    for word in command.split_whitespace() {
        match word {
            "sudo" | "sh" => continue,
            "&&" => {
                is_first = true;
                continue;
            }
            _ => {}
        }
        let is_data = [".yaml", ".json", ".html"]
            .iter()
            .any(|end| word.ends_with(end));
        let is_value = is_data
            || word.contains(['/', ':', '=', '*', '%', '$', '"', '\''])
            || word.chars().all(|c| c.is_ascii_digit());
        if word.starts_with('-') {
            words.push(word.split('=').next().unwrap_or(word));
        } else if repository(word).is_file() && !word.contains("target/") {
            words.push(word);
        } else if is_first {
            // People write `apt`, scripts write `apt-get`.
            let program = word.rsplit('/').next().unwrap_or(word);
            words.push(if program == "apt" { "apt-get" } else { program });
        } else if !is_value {
            words.push(word);
        }
        is_first = false;
    }
    words
}

/// Whether it stands there by itself, and not as a part of a longer word.
fn occurs(source: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    source.match_indices(word).any(|(at, _)| {
        let before = source[..at].chars().next_back();
        let after = source[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[test]
fn words_are_what_says_which_command_it_is() {
    assert_eq!(
        words("sh .ci/setup && cargo run -- demo"),
        [".ci/setup", "cargo", "run", "--", "demo"]
    );
    assert_eq!(
        words("./target/release/sluicegate --listen :8080 node0:8000"),
        ["sluicegate", "--listen"]
    );
    assert_eq!(
        words("sluicegate import config.yaml > sluicegate.yaml"),
        ["sluicegate", "import"]
    );
    assert_eq!(
        words("sudo apt install ./target/debian/*.deb"),
        ["apt-get", "install"]
    );
    assert_eq!(
        words("k6 run --out influxdb=http://localhost:8086/k6 stress-test.js"),
        ["k6", "run", "--out", "stress-test.js"]
    );
    assert!(occurs("run(&[\"-t\", \"-c\"])", "-t"));
    assert!(!occurs("run(&[\"--strict\"])", "-s"));
    assert!(!occurs("not-a-word", "a"));
}

#[test]
fn only_what_is_run_counts() {
    let text = "const LINE: &str = \"k6\";\n\n#[test]\nfn one() {\n    two();\n}\n\n#[test]\n#[ignore]\nfn other() {\n    three();\n}\n\nfn helper() {\n    four();\n}\n";
    let source = of_test(text, "one").unwrap();
    for (word, is_there) in [
        ("k6", true),
        ("two", true),
        ("three", false),
        ("four", true),
    ] {
        assert_eq!(occurs(&source, word), is_there, "{word}");
    }
    for name in ["other", "helper", "none"] {
        assert_eq!(of_test(text, name), None, "{name}");
    }

    let script = "set -eu\npart() {\n    ab -n 1\n}\nidle() {\n    ab -n 2\n}\ncase $1 in\n    it) part ;;\nesac\n";
    assert_eq!(of_function(script, "part").unwrap(), "    ab -n 1");
    assert_eq!(of_function(script, "idle"), None);

    let command = "k6 run --out influxdb=http://localhost:8086/k6 stress-test.js";
    let test = "every_test_runs_and_its_series_hold_what_the_engines_counted";
    assert_eq!(verify(command, "tests/guide/k6.rs", test), Ok(()));
    for (command, file, place, complaint) in [
        (
            command,
            "tests/guide/k6.rs",
            "no_such_test",
            "no test no_such_test",
        ),
        (
            "k6 archive",
            "tests/guide/k6.rs",
            test,
            "has no \"archive\"",
        ),
        ("ab -r", "tests/clients/ab.sh", "", "has no \"-r\""),
        (
            "jq",
            "loadtest/apache/postdata",
            "",
            "starts loadtest/apache/postdata",
        ),
        ("jq", ".ci/full", "no_such_part", "calls no no_such_part"),
        ("jq", "no/such/file", "", "no/such/file: "),
    ] {
        let refused = verify(command, file, place).expect_err(command);
        assert!(refused.contains(complaint), "{refused}");
    }
}
