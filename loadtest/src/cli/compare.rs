//! `loadtest compare`.
use clap::Args;
use std::io::Result;
use std::process::ExitCode;
#[derive(Debug, Args)]
pub struct Flags {}
impl Flags {
    pub(super) fn run(self) -> Result<ExitCode> {
        Ok(ExitCode::SUCCESS)
    }
}
