use std::process::ExitCode;

use clap::Parser;
use sluicegate::cli::Cli;
use sluicegate::tasks::signals::Signals;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Signals::take() {
        Ok(signals) => Cli::parse().execute(signals),
        Err(e) => {
            eprintln!("the signals of the process cannot be handled: {e}");
            ExitCode::FAILURE
        }
    }
}
