//! `sluicegate generate`: the manual pages and the completions of shells, out of the command line itself.
//!
//! Packages are built with it; in operation it is of no use.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// Of system administration: the binary is in /usr/sbin.
const SECTION: &str = "8";

const DESCRIPTION: &str = "Without a command the gateway runs, in the foreground: by its configuration file, or \
                           without one by --listen and the inference servers that follow.";

const FILES: [(&str, &str); 5] = [
    (
        "/etc/sluicegate/sluicegate.yaml",
        "The configuration. Every key with its default: /usr/share/doc/sluicegate/conf/reference.yaml.",
    ),
    (
        "/etc/sluicegate/sluicegate.env",
        "Values that the configuration names as ${NAME}; the service reads it when it starts.",
    ),
    (
        "/run/sluicegate/sluicegate.pid",
        "The process that -s signals.",
    ),
    (
        "/run/sluicegate/admin.sock",
        "The admin listener, besides 127.0.0.1:9180.",
    ),
    (
        "/var/log/sluicegate/access.log",
        "A line of JSON for each request, by the packaged configuration.",
    ),
];

const SIGNALS: [(&str, &str); 4] = [
    (
        "HUP",
        "Read the configuration and the certificates again. One with a mistake changes nothing.",
    ),
    ("USR1", "Open the access log again."),
    (
        "TERM, QUIT",
        "Let requests in flight finish, for shutdown_grace at most, then exit. A second TERM: exit now.",
    ),
    ("INT", "Exit now."),
];

/// Writes `directory`/man and `directory`/completions; exit status 0, or 1 and the reason on stderr.
pub fn write(command: Command, directory: &Path) -> ExitCode {
    match try_write(command, directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("cannot write to {}: {problem}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn try_write(command: Command, directory: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    let completions = directory.join("completions");
    fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut shown(&command), "sluicegate", &completions)?;
    }
    let man = directory.join("man");
    fs::create_dir_all(&man)?;
    // Gives the subcommands their full names.
    command.build();
    for subcommand in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        page(subcommand, &Roff::new(), &man)?;
    }
    page(&command, &of_the_daemon(), &man)
}

/// `command` without what is hidden: zsh would offer it.
fn shown(command: &Command) -> Command {
    let subcommands = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    Command::new("sluicegate")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args(command.get_arguments())
        .subcommands(subcommands)
}

fn page(command: &Command, further: &Roff, directory: &Path) -> io::Result<()> {
    let man = Man::new(command.clone())
        .section(SECTION)
        .manual("Sluicegate");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    synopsis(command).to_writer(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(&mut text)?;
    }
    further.to_writer(&mut text)?;
    fs::write(directory.join(man.get_filename()), text)
}

/// As `--help` shows it; the library's own names every option and leaves their values out.
fn synopsis(command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    let usage = command.clone().render_usage().to_string();
    for line in usage.trim_start_matches("Usage:").trim().lines() {
        roff.text([roman(line.trim())]);
        roff.control("br", []);
    }
    roff
}

/// What `--help` does not tell.
fn of_the_daemon() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(DESCRIPTION)]);
    for (heading, entries) in [("FILES", &FILES[..]), ("SIGNALS", &SIGNALS[..])] {
        roff.control("SH", [heading]);
        for (name, meaning) in entries {
            roff.control("TP", []);
            roff.text([bold(*name)]);
            roff.text([roman(*meaning)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("/usr/share/doc/sluicegate/docs/operations.md")]);
    roff
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_has_a_page_and_no_hidden_one_is_shown() {
        let directory = std::env::temp_dir().join(format!("generate-{}", std::process::id()));
        try_write(Cli::command(), &directory).unwrap();
        let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap();
        let main = read("man/sluicegate.8");
        for shown in [
            "SYNOPSIS",
            "\\-\\-listen",
            "sluicegate\\-ready(8)",
            "FILES",
            "USR1",
        ] {
            assert!(main.contains(shown), "no {shown} in {main}");
        }
        let files = [
            "completions/sluicegate.bash",
            "completions/_sluicegate",
            "completions/sluicegate.fish",
        ];
        for subcommand in Cli::command().get_subcommands() {
            let name = subcommand.get_name();
            let page = directory.join(format!("man/sluicegate-{name}.8"));
            assert_eq!(
                page.exists(),
                !subcommand.is_hide_set(),
                "{}",
                page.display()
            );
            let is_no_word = |c: char| !c.is_ascii_alphanumeric() && c != '-';
            for file in files {
                let text = read(file);
                let is_offered = text.split(is_no_word).any(|word| word == name);
                assert_eq!(is_offered, !subcommand.is_hide_set(), "{name} in {file}");
            }
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
