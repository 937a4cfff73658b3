//! The command line: flags into scripts and plans, nothing else.

mod compare;
mod engine;
mod load;
mod survive;
mod units;

use std::io::{Error, Result};
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Simulated inference engines, load, and comparisons of gateways"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve as a simulated engine until interrupted
    Engine(engine::Flags),
    /// Send load and print what came of it
    Load(load::Flags),
    /// Measure gateways against each other
    Compare(compare::Flags),
    /// Hold gateways to their streams while engines die, hang and come back
    Survive(survive::Flags),
}

impl Cli {
    /// Runs the command. Failed requests make `load` exit 1, figures that are worse `compare`, a stream
    /// that was not survived `survive`.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Engine(flags) => flags.run(),
            Command::Load(flags) => flags.run(),
            Command::Compare(flags) => flags.run(),
            Command::Survive(flags) => flags.run(),
        }
    }
}

/// Writes a result.
fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)
        .map_err(|error| Error::other(format!("{} cannot be written: {error}", path.display())))
}
