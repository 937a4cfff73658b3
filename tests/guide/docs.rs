//! Every command that our pages show is run here, is run by another test, or stands in a list with the reason why not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::checks::{CHECKS, Check};
use crate::gateway::PROGRAM;
use crate::influx::Influx;
use crate::programs::{find, lacks};
use crate::run_by;
use crate::world::{World, quick, repository};

/// The commands of one fenced block.
struct Block {
    page: PathBuf,
    /// Of its fence.
    line: usize,
    commands: Vec<String>,
}

impl Block {
    fn place(&self) -> String {
        format!("{}:{}", self.page.display(), self.line)
    }
}

#[test]
fn every_command_that_is_shown_is_checked_somehow() {
    let mut unknown = BTreeSet::new();
    let mut shown = BTreeSet::new();
    for block in blocks() {
        for command in &block.commands {
            if check(command).is_none() {
                unknown.insert(format!("{}: {command}", block.place()));
            }
            shown.insert(command.clone());
        }
    }
    assert!(
        unknown.is_empty(),
        "say in tests/guide/checks.rs how these are checked: {unknown:#?}"
    );
    let unused: Vec<_> = CHECKS
        .iter()
        .map(|(command, _)| *command)
        .filter(|command| !shown.contains(*command))
        .collect();
    assert!(
        unused.is_empty(),
        "no page shows these of tests/guide/checks.rs: {unused:#?}"
    );
    for (command, check) in CHECKS {
        match check {
            Check::Runs(_) => {}
            Check::RunBy(file, place) => {
                if let Err(problem) = run_by::verify(command, file, place) {
                    panic!("{command} is not run as the list says: {problem}");
                }
            }
            Check::Not(reason) => {
                assert!(reason.fits(command), "{command} does not need {reason:?}")
            }
        }
    }
}

/// A block without a language would not be seen.
#[test]
fn every_block_has_a_language() {
    for page in pages() {
        let text = std::fs::read_to_string(repository(&page)).unwrap();
        let mut is_inside = false;
        for (number, line) in text.lines().enumerate() {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                assert!(
                    is_inside || !language.is_empty(),
                    "{}:{}: a block needs a language; `text` for what is neither command nor file",
                    page.display(),
                    number + 1
                );
                is_inside = !is_inside;
            }
        }
    }
}

/// Those that can be, in the order of their block, where a reader of the page would be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_can_be_run_are_run() {
    for program in ["ab", "curl", "jq", "k6"] {
        if find(program).is_none() {
            return;
        }
    }
    let Some(influxd) = find("influxd") else {
        return;
    };
    if !beside("loadtest").exists() {
        return lacks("loadtest, which is built with --workspace,");
    }
    let world = World::start(quick()).await.with(Influx::start(&influxd));
    world.clone_repository();
    let environment = [("TIME_SCALE", "0.01".to_owned())];
    let mut run = 0;
    for block in blocks() {
        let mut script = Vec::new();
        let mut expected: Vec<&str> = Vec::new();
        for command in &block.commands {
            if let Some(Check::Runs(words)) = check(command) {
                script.push(command.as_str());
                expected.push(words);
                run += 1;
            }
        }
        if script.is_empty() {
            continue;
        }
        let output = world.shell(
            &format!("cd ~/sluicegate\n{}", script.join("\n")),
            &environment,
        );
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(
            output.status.success(),
            "{}: {}: {said}",
            block.place(),
            output.status
        );
        for words in expected {
            assert!(
                said.contains(words),
                "{}: no {words:?} in {said}",
                block.place()
            );
        }
    }
    assert!(run > 10, "{run}");
}

/// Docker is not here to say it: the files that it is given exist.
#[test]
fn files_that_docker_is_given_exist() {
    let mut seen = 0;
    for block in blocks() {
        let mut directory = repository("");
        for command in &block.commands {
            let words: Vec<&str> = command.split_whitespace().collect();
            if let ["cd", to] = words[..] {
                directory = repository(to);
            }
            if words[0] != "docker" {
                continue;
            }
            let after = |option: &str| {
                let at = words.iter().position(|word| *word == option);
                at.and_then(|at| words.get(at + 1)).copied()
            };
            let mut files = Vec::new();
            if words[1] == "compose" {
                files.push(directory.join(after("-f").unwrap_or("docker-compose.yml")));
            } else if let Some(volume) = after("-v") {
                let host = volume.split(':').next().unwrap();
                // What is not beneath the clone is the reader's.
                files.extend(
                    host.strip_prefix("${PWD}/")
                        .map(|path| directory.join(path)),
                );
            }
            for file in files {
                assert!(file.exists(), "{}: {}", block.place(), file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 3, "{seen}");
}

/// One number for the open files of ab, wherever it is said; and an image that is shown is one that is started.
#[test]
fn what_is_said_twice_is_the_same() {
    let mut limits = BTreeSet::new();
    for page in pages() {
        let text = std::fs::read_to_string(repository(&page)).unwrap();
        for before in ["ulimit -n ", "nofile="] {
            for rest in text.split(before).skip(1) {
                let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
                limits.extend((!number.is_empty()).then_some(number));
            }
        }
    }
    assert_eq!(limits.len(), 1, "{limits:?}");

    let pool = ["docker-compose.yml", "docker-compose.sglang.yml"]
        .map(|name| std::fs::read_to_string(repository("conf/pool").join(name)).unwrap())
        .concat();
    let mut seen = 0;
    for command in blocks().iter().flat_map(|block| &block.commands) {
        for image in command
            .split_whitespace()
            .filter(|word| word.starts_with("vllm/"))
        {
            assert!(pool.contains(&format!("image: {image}\n")), "{command}");
            seen += 1;
        }
    }
    assert!(seen > 0);
}

/// The options of our own programs exist, wherever they are shown.
#[test]
fn options_that_are_shown_exist() {
    let mut help = BTreeMap::new();
    for block in blocks() {
        for command in &block.commands {
            let Some((name, arguments)) = program_of_ours(command) else {
                continue;
            };
            let program = beside(name);
            if !program.exists() {
                return lacks("loadtest, which is built with --workspace,");
            }
            let is_subcommand =
                |word: &&&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            let subcommand = arguments
                .first()
                .filter(is_subcommand)
                .filter(|word| !word.starts_with('-'));
            let asked: Vec<&str> = subcommand.copied().into_iter().chain(["--help"]).collect();
            let told = help
                .entry((name.to_owned(), asked.clone().join(" ")))
                .or_insert_with(|| {
                    let output = Command::new(&program).args(&asked).output().unwrap();
                    assert!(output.status.success(), "{}: {command}", block.place());
                    String::from_utf8_lossy(&output.stdout).into_owned()
                });
            let ends_name = |c: char| c.is_whitespace() || matches!(c, ',' | '=' | '[');
            for option in arguments.iter().filter(|word| word.starts_with('-')) {
                let option = option.split('=').next().unwrap();
                assert!(
                    told.split(ends_name).any(|word| word == option),
                    "{}: {command}: there is no {option}",
                    block.place()
                );
            }
        }
    }
    assert!(help.len() > 2, "{help:?}");
}

/// Its name and its arguments, if the command starts one of our two programs.
fn program_of_ours(command: &str) -> Option<(&str, Vec<&str>)> {
    let words = command.split(" > ").next().unwrap().split_whitespace();
    let mut words = words.skip_while(|word| *word == "sudo");
    let name = words.next()?.rsplit('/').next()?;
    matches!(name, "sluicegate" | "loadtest").then(|| (name, words.collect()))
}

/// A program of ours, built with this one.
fn beside(name: &str) -> PathBuf {
    Path::new(PROGRAM).with_file_name(name)
}

fn check(command: &str) -> Option<&'static Check> {
    let found = CHECKS.iter().find(|(known, _)| *known == command);
    found.map(|(_, check)| check)
}

/// README, and what it leads to.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![PathBuf::from("README.md")];
    let mut left: Vec<PathBuf> = ["docs", "loadtest", "conf"].map(PathBuf::from).to_vec();
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(repository(&directory)).unwrap() {
            let path = directory.join(entry.unwrap().file_name());
            if path.extension().is_some_and(|extension| extension == "md") {
                // What the transcripts hold is no command of ours.
                if !path.starts_with("loadtest/tests") {
                    pages.push(path);
                }
            } else if repository(&path).is_dir() {
                left.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// Those that are fenced, and indented lines that begin with a program.
fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(repository(&page)).unwrap();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let commands = if let Some(language) = line.trim_start().strip_prefix("```") {
                let body: Vec<&str> = lines
                    .by_ref()
                    .map(|(_, line)| line)
                    .take_while(|line| !line.trim_start().starts_with("```"))
                    .collect();
                match language.trim() {
                    "sh" | "bash" | "shell" => commands(&body),
                    // What is typed stands behind a prompt, the rest is what was printed.
                    "console" => {
                        let typed = body.iter().map(|line| line.trim_start());
                        commands(
                            &typed
                                .filter_map(|line| line.strip_prefix("$ "))
                                .collect::<Vec<_>>(),
                        )
                    }
                    _ => continue,
                }
            } else if line.strip_prefix("    ").is_some_and(begins_with_a_program) {
                commands(&[line])
            } else {
                continue;
            };
            blocks.push(Block {
                page: page.clone(),
                line: number + 1,
                commands,
            });
        }
    }
    blocks
}

fn begins_with_a_program(line: &str) -> bool {
    let programs = [
        "ab",
        "apt-get",
        "cargo",
        "curl",
        "docker",
        "install",
        "k6",
        "loadtest",
        "sh",
        "sluicegate",
        "sudo",
        "sysctl",
        "systemctl",
    ];
    let word = line.split_whitespace().next().unwrap_or_default();
    programs.contains(&word.rsplit('/').next().unwrap_or_default())
}

/// Each command on one line, its blanks as one, without comments. Lines that end in `\` go on in the next.
fn commands(lines: &[&str]) -> Vec<String> {
    let text = lines.join("\n").replace("\\\n", " ");
    let lines = text.lines().map(without_comment);
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect()
}

fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') if before.is_whitespace() => return &line[..at],
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
        before = c;
    }
    line
}

#[test]
fn commands_are_told_from_comments_and_continued_lines() {
    let lines = [
        "# before",
        "one  two # three",
        "curl 'a # b' \\",
        "  -d \"c\"",
        "",
    ];
    assert_eq!(commands(&lines), ["one two", "curl 'a # b' -d \"c\""]);
}
