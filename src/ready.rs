//! `sluicegate ready`: asks a running gateway whether it can serve, for health checks.

use std::process::ExitCode;

use crate::ask::Door;

/// What a health check wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Every pool has an endpoint up (`/ready`).
    Ready,
    /// The process takes connections and answers (`/health`), whatever its endpoints do. A gateway that drains takes
    /// no connections any more.
    Alive,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Self::Ready => "/ready",
            Self::Alive => "/health",
        }
    }

    fn no(self) -> &'static str {
        match self {
            Self::Ready => "not ready",
            Self::Alive => "not alive",
        }
    }
}

/// Exit status 0 when the gateway at `url` says yes, with 200; else 1, and the reason on stderr.
pub fn check(url: &str, question: Question) -> ExitCode {
    let asked = Door::parse(url).and_then(|door| {
        let asked = door.ask("GET", question.path(), &[]);
        asked.map_err(|e| e.to_string())
    });
    match asked {
        Ok(answer) if answer.status == 200 => ExitCode::SUCCESS,
        Ok(answer) => {
            eprintln!("{}: {url} answered {}", question.no(), answer.status);
            ExitCode::FAILURE
        }
        Err(problem) => {
            eprintln!("{}: {url}: {problem}", question.no());
            ExitCode::FAILURE
        }
    }
}
