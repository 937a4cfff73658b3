//! The command line. A person's nginx habits keep working: `-c`, `-t`, `-T`, `-s`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::{self, Config, Diagnostics, look_up};
use crate::demo;
use crate::drain::Drain;
use crate::generate;
use crate::import::Import;
use crate::key::Key;
use crate::listener::handover::Predecessor;
use crate::local::admin::Action;
use crate::ready::Question;
use crate::run;
use crate::tasks::signals::Signals;

/// Where the configuration is when nothing else is said.
pub const DEFAULT_FILE: &str = "/etc/sluicegate/sluicegate.yaml";

/// Longer than the old process waits for the new one.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(70);
const UPGRADE_POLL: Duration = Duration::from_millis(20);

/// The gateway in front of a pool of LLM inference servers.
#[derive(Debug, Parser)]
#[command(name = "sluicegate", version, disable_version_flag = true)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// The configuration file
    #[arg(short, long = "config", value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// Test the configuration and exit: 0 = successful
    #[arg(short)]
    test: bool,
    /// Test the configuration, print it with every default, and exit
    #[arg(short = 'T')]
    print: bool,
    /// With -t: a warning counts as a failure (exit status 2)
    #[arg(long, requires = "test")]
    strict: bool,
    /// Signal the running gateway through its pid file
    #[arg(short, value_name = "SIGNAL")]
    signal: Option<Order>,
    /// Print the version and exit
    #[arg(short = 'V', long = "version", action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// Listen here, without a configuration file: PORT, :PORT, ADDR:PORT or unix:/path
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["config", "print", "signal"])]
    listen: Vec<String>,
    /// With --listen: the admin listener, ADDR:PORT or off [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", requires = "listen", conflicts_with_all = ["config", "signal"])]
    admin: Option<String>,
    /// With --listen: the inference servers
    #[arg(value_name = "HOST:PORT", requires = "listen", conflicts_with_all = ["config", "signal"])]
    endpoints: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// Read the configuration again
    Reload,
    /// Open the access log again
    Reopen,
    /// Finish the requests in hand, then exit
    Quit,
    /// Exit now
    Stop,
    /// Have the program as it is installed now take over, and wait until it has
    Upgrade,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start two simulated engines and the gateway, and say what to try
    Demo(demo::Demo),
    /// Print the sluicegate.yaml that does what an nginx.conf or a LiteLLM config.yaml does, and list what it could not
    /// carry over
    Import(Import),
    /// Make an API key: print it, and on the next line the entry of `keys` that holds its hash
    Key(Key),
    /// Send an endpoint no new requests, until undrain; those that it has go on
    Drain(Drain),
    /// Let a drained endpoint have requests again, once a probe finds it well
    Undrain(Drain),
    /// Exit 0 when the gateway at URL is ready, else 1
    Ready(Ready),
    /// One simulated engine of the demo
    #[command(hide = true)]
    DemoEngine(demo::DemoEngine),
    /// Write the manual pages and the completions of shells, for a package
    Generate(Generate),
}

#[derive(Debug, Args)]
struct Ready {
    /// Where the gateway is: http://HOST:PORT or unix:/path
    #[arg(default_value = "http://127.0.0.1:9180")]
    url: String,
    /// Only whether it runs and answers, whatever its endpoints do
    #[arg(long)]
    alive: bool,
}

impl Ready {
    fn ask(&self) -> ExitCode {
        let question = if self.alive {
            Question::Alive
        } else {
            Question::Ready
        };
        crate::ready::check(&self.url, question)
    }
}

#[derive(Debug, Args)]
struct Generate {
    /// Where to: its man/ and completions/ are made
    directory: PathBuf,
}

impl Cli {
    /// Does what was asked.
    pub fn execute(self, mut signals: Signals) -> ExitCode {
        let serves = self.signal.is_none() && !self.test && !self.print;
        if !matches!(self.command, None | Some(Command::Demo(_))) || !serves {
            signals.leave();
        }
        match self.command {
            Some(Command::Demo(demo)) => demo.run(signals),
            Some(Command::DemoEngine(engine)) => engine.run(),
            Some(Command::Import(import)) => import.run(),
            Some(Command::Key(key)) => key.run(),
            Some(Command::Drain(drain)) => drain.run(Action::Drain),
            Some(Command::Undrain(drain)) => drain.run(Action::Undrain),
            Some(Command::Ready(ready)) => ready.ask(),
            Some(Command::Generate(generate)) => {
                generate::write(Self::command(), &generate.directory)
            }
            None => match self.signal {
                Some(order) => order.give(&self.config),
                None if serves => self.serve(signals),
                None => self.test(),
            },
        }
    }

    fn serve(self, signals: Signals) -> ExitCode {
        let loaded = self.load();
        let predecessor = Predecessor::of_this_process();
        match loaded {
            Ok(config) => {
                let file = self.listen.is_empty().then_some(self.config.as_path());
                run::run(config, file, signals, predecessor)
            }
            Err(mistakes) => {
                eprintln!("{mistakes}");
                if let Some(predecessor) = predecessor {
                    // The others are in the log as well.
                    let mistakes = mistakes.to_string();
                    predecessor.failed(mistakes.lines().next().unwrap_or_default());
                }
                ExitCode::FAILURE
            }
        }
    }

    fn test(&self) -> ExitCode {
        match self.load() {
            Ok(config) => self.report(&config),
            Err(mistakes) => {
                eprintln!("{mistakes}");
                eprintln!("configuration file {} test failed", self.config.display());
                ExitCode::FAILURE
            }
        }
    }

    fn load(&self) -> Result<Config, Diagnostics> {
        if self.listen.is_empty() {
            config::load(&self.config, &environment)
        } else {
            config::from_command_line(&self.listen, &self.endpoints, self.admin.as_deref())
        }
    }

    fn report(&self, config: &Config) -> ExitCode {
        let findings = config.check(SystemTime::now(), &look_up);
        if !findings.is_empty() {
            eprintln!("{findings}");
        }
        let file = self.config.display();
        if findings.has_errors() {
            eprintln!("configuration file {file} test failed");
            return ExitCode::FAILURE;
        }
        let is_refused = self.strict && !findings.is_empty();
        match is_refused {
            true => eprintln!("configuration file {file} test failed: --strict takes no warnings"),
            false => eprintln!("configuration file {file} test is successful"),
        }
        if self.print {
            print!("{}", config.to_yaml());
        }
        match is_refused {
            true => ExitCode::from(2),
            false => ExitCode::SUCCESS,
        }
    }
}

impl Order {
    fn signal(self) -> Signal {
        match self {
            Self::Reload => Signal::SIGHUP,
            Self::Reopen => Signal::SIGUSR1,
            Self::Quit => Signal::SIGQUIT,
            Self::Stop => Signal::SIGINT,
            Self::Upgrade => Signal::SIGUSR2,
        }
    }

    fn give(self, file: &Path) -> ExitCode {
        // Only `pid_file` is asked for: secrets are in the environment of the service, not in this one.
        // Each is another, as no two keys may have the same.
        let known = |name: &str| environment(name).or_else(|| Some(format!("unset-{name}")));
        let config = match config::load(file, &known) {
            Ok(config) => config,
            Err(mistakes) => {
                eprintln!("{mistakes}");
                return ExitCode::FAILURE;
            }
        };
        let Some(pid_file) = &config.pid_file else {
            eprintln!(
                "{} has `pid_file: null`: send the signal with kill",
                file.display()
            );
            return ExitCode::FAILURE;
        };
        let told = if self == Self::Upgrade {
            upgrade_by(pid_file)
        } else {
            Told::by(pid_file, self.signal()).map(|_| ())
        };
        match told {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::FAILURE
            }
        }
    }
}

/// A process that was signalled.
struct Told {
    pid: i32,
    /// When its file was written.
    written: SystemTime,
}

impl Told {
    fn by(pid_file: &Path, signal: Signal) -> Result<Self, String> {
        let told = Self::read(pid_file)?;
        kill(Pid::from_raw(told.pid), signal)
            .map_err(|e| format!("process {} cannot be signalled: {e}", told.pid))?;
        Ok(told)
    }

    fn read(pid_file: &Path) -> Result<Self, String> {
        let failed = |e: io::Error| {
            let file = pid_file.display();
            format!("cannot read the pid file {file}: {e}; is it running?")
        };
        let written = pid_file.metadata().and_then(|file| file.modified());
        let text = std::fs::read_to_string(pid_file).map_err(failed)?;
        let pid = text.trim().parse::<i32>().ok().filter(|pid| *pid > 1);
        let Some(pid) = pid else {
            let file = pid_file.display();
            return Err(format!("the pid file {file} holds no process id"));
        };
        let written = written.map_err(failed)?;
        Ok(Self { pid, written })
    }
}

/// Waits for what becomes of an upgrade: the new process writes its id into the file when it serves, the old one
/// writes its own again when it does not.
fn upgrade_by(pid_file: &Path) -> Result<(), String> {
    let old = Told::by(pid_file, Signal::SIGUSR2)?;
    let deadline = Instant::now() + UPGRADE_PATIENCE;
    while Instant::now() < deadline {
        std::thread::sleep(UPGRADE_POLL);
        // Empty for a moment while it is written.
        let Ok(now) = Told::read(pid_file) else {
            if !pid_file.exists() {
                return Err(format!(
                    "process {} has taken {} away: it has handed over to a process whose configuration has another `pid_file`, or has ended; its log says which",
                    old.pid,
                    pid_file.display()
                ));
            }
            continue;
        };
        if now.pid != old.pid {
            println!("process {} serves in place of process {}", now.pid, old.pid);
            return Ok(());
        }
        if now.written != old.written {
            break;
        }
    }
    Err(format!(
        "process {} serves on: its log says why no other took over",
        old.pid
    ))
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
