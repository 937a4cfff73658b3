//! The gateways: how each is named, started, and seen to be ready.

use std::env;
use std::fmt;
use std::fs;
use std::io::{Error, Result};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::client;
use super::process::Process;
use super::site::Site;

/// One of the gateways compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    pub kind: Kind,
    /// In the table.
    pub name: String,
    pub program: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With the configuration of AMD's guide.
    Nginx,
    /// `balance leastconn`.
    Haproxy,
    /// The two lines that replace nginx: no keys, no models, every path.
    Sluicegate,
    /// With keys and their limits, and a model that the engines know by another name.
    SluicegateLlm,
    /// Shepherd Model Gateway as it starts by default.
    Smg,
    /// The router of the vLLM project as it starts by default.
    VllmRouter,
    /// With the configuration of AMD's guide and one worker process.
    Litellm,
    /// No gateway: the first engine.
    Direct,
}

/// What a gateway is given at most. What takes more than a core does all its work late, and its clients measure
/// the queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bears {
    pub streams: usize,
    /// Before the memory plans.
    pub requests: u64,
    /// Requests a second of the latency plan.
    pub rate: f64,
}

impl fmt::Display for Bears {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            streams,
            requests,
            rate,
        } = self;
        write!(
            f,
            "at most {streams} streams, {requests} requests before them, {rate} requests/s"
        )
    }
}

/// How a client names itself and what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub model: &'static str,
    pub key: Option<&'static str>,
}

/// The name that clients use where a gateway gives the engines another one; as long as theirs, so that all send
/// the same number of bytes.
pub(crate) const ALIAS: &str = "reasoning-1";
/// The engines' own.
pub(crate) const MODEL: &str = "DeepSeek-R1";
/// What gateways with keys ask their clients for. LiteLLM does not start with one that is published.
pub(crate) const KEY: &str = "sk-T3wQzK8mX1vB6nR4cY9dLpEa";

impl Kind {
    const NAMED: [Self; 7] = [
        Self::Nginx,
        Self::Haproxy,
        Self::Sluicegate,
        Self::SluicegateLlm,
        Self::Smg,
        Self::VllmRouter,
        Self::Litellm,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Sluicegate => "sluicegate",
            Self::SluicegateLlm => "sluicegate-llm",
            Self::Smg => "smg",
            Self::VllmRouter => "vllm-router",
            Self::Litellm => "litellm",
            Self::Direct => "direct",
        }
    }

    /// What is looked for on the PATH.
    fn program(self) -> &'static str {
        match self {
            Self::SluicegateLlm => Self::Sluicegate.name(),
            _ => self.name(),
        }
    }

    /// Whether it is a script that pip installed, its package having the same name.
    fn is_script(self) -> bool {
        matches!(self, Self::Smg | Self::VllmRouter | Self::Litellm)
    }

    /// Until the first answer. LiteLLM imports for a quarter of a minute.
    fn patience(self) -> Duration {
        Duration::from_secs(if self.is_script() { 120 } else { 20 })
    }

    /// How often it is asked whether it answers yet: those that take seconds must not be kept busy meanwhile.
    fn asked_every(self) -> Duration {
        Duration::from_millis(if self.is_script() { 50 } else { 1 })
    }

    /// None where it takes the load that is wanted.
    pub(super) fn bears(self) -> Option<Bears> {
        // 10 ms a request, 1 ms a token.
        (self == Self::Litellm).then_some(Bears {
            streams: 8,
            requests: 1000,
            rate: 30.0,
        })
    }

    pub(crate) fn caller(self) -> Caller {
        match self {
            Self::SluicegateLlm | Self::Litellm => Caller {
                model: ALIAS,
                key: Some(KEY),
            },
            _ => Caller {
                model: MODEL,
                key: None,
            },
        }
    }

    /// Whether it has a reload that can be timed.
    pub(super) fn reloads(self) -> bool {
        !self.is_script() && self != Self::Direct
    }
}

/// A kind (`nginx`, `haproxy`, `sluicegate`, `sluicegate-llm`, `smg`, `vllm-router`, `litellm`), or
/// `KIND=PROGRAM`, or `LABEL:KIND=PROGRAM` to tell two builds apart.
impl FromStr for Gateway {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, program) = text.split_once('=').unwrap_or((text, ""));
        let (label, kind) = name.split_once(':').unwrap_or((name, name));
        let known = Kind::NAMED.into_iter().find(|known| known.name() == kind);
        let kind = known.ok_or_else(|| {
            let known: Vec<_> = Kind::NAMED.iter().map(|kind| kind.name()).collect();
            format!("{kind:?} is none of {}", known.join(", "))
        })?;
        let program = if program.is_empty() {
            kind.program()
        } else {
            program
        };
        Ok(Self {
            kind,
            name: label.to_owned(),
            program: PathBuf::from(program),
        })
    }
}

impl Gateway {
    pub(super) fn direct() -> Self {
        Self {
            kind: Kind::Direct,
            name: "direct".to_owned(),
            program: PathBuf::new(),
        }
    }

    /// What the program says of its version, or pip of its package.
    pub(crate) fn version(&self) -> String {
        let mut command = match self.kind {
            kind if kind.is_script() => {
                let Some(interpreter) = interpreter(&self.program) else {
                    return "unknown".to_owned();
                };
                let package = kind.name();
                let code = format!(
                    "import importlib.metadata as m; print({package:?}, m.version({package:?}))"
                );
                let mut command = Command::new(interpreter);
                command.args(["-c", &code]);
                command
            }
            kind => {
                let mut command = Command::new(&self.program);
                command.arg(match kind {
                    Kind::Nginx | Kind::Haproxy => "-v",
                    _ => "-V",
                });
                command
            }
        };
        let Ok(output) = command.output() else {
            return "unknown".to_owned();
        };
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text)
            .lines()
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// Writes the configuration and starts the gateway in `directory`; returns when a request came through.
    pub(super) async fn start(
        &self,
        engines: &[SocketAddr],
        logs: bool,
        directory: &Path,
    ) -> Result<Running> {
        let caller = self.kind.caller();
        if self.kind == Kind::Direct {
            return Ok(Running {
                address: engines[0],
                caller,
                admin: None,
                process: None,
                ready: Duration::ZERO,
            });
        }
        let (address, admin) = (free_address()?, free_address()?);
        let site = Site {
            address,
            admin,
            engines,
            logs,
            directory,
            pool: "",
            keys: "",
        };
        site.write(self.kind)?;
        let command = site.command(self.kind, &self.program);
        let log = directory.join("output.log");
        let start = Instant::now();
        let mut process = Process::start(command, &log)?;
        let request = client::post(address, caller, client::SHORT_PROMPT, 1, false);
        while !client::answers(address, &request).await {
            let output = || fs::read_to_string(&log).unwrap_or_default();
            process
                .check()
                .map_err(|error| Error::other(format!("{error}\n{}", output())))?;
            if start.elapsed() > self.kind.patience() {
                return Err(Error::other(format!(
                    "{} does not answer\n{}",
                    self.name,
                    output()
                )));
            }
            tokio::time::sleep(self.kind.asked_every()).await;
        }
        Ok(Running {
            address,
            caller,
            admin: Some(admin),
            process: Some(process),
            ready: start.elapsed(),
        })
    }

    /// Writes a configuration that differs a little, as before a reload.
    pub(super) fn reconfigure(
        &self,
        running: &Running,
        engines: &[SocketAddr],
        directory: &Path,
    ) -> Result<()> {
        let site = Site {
            address: running.address,
            admin: running.admin.unwrap_or(running.address),
            engines,
            logs: false,
            directory,
            pool: "",
            keys: "",
        };
        site.write(self.kind)
    }
}

/// A gateway that runs.
pub(super) struct Running {
    pub address: SocketAddr,
    caller: Caller,
    pub admin: Option<SocketAddr>,
    /// None without a gateway.
    pub process: Option<Process>,
    /// From its start to the first answer through it.
    pub ready: Duration,
}

impl Running {
    /// A chat request to it, as [`client::post`].
    pub(super) fn post(&self, prompt_bytes: usize, max_tokens: usize, stream: bool) -> Vec<u8> {
        client::post(self.address, self.caller, prompt_bytes, max_tokens, stream)
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// The interpreter that a script names in its first line.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let text = if script.components().count() > 1 {
        fs::read_to_string(script).ok()?
    } else {
        env::split_paths(&env::var_os("PATH")?)
            .find_map(|directory| fs::read_to_string(directory.join(script)).ok())?
    };
    let line = text.lines().next()?.strip_prefix("#!")?;
    Some(PathBuf::from(line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_a_kind_perhaps_with_a_program_and_a_label() {
        let parse = |text: &str| {
            text.parse::<Gateway>()
                .map(|g| (g.kind, g.name, g.program.display().to_string()))
        };
        assert_eq!(
            parse("nginx"),
            Ok((Kind::Nginx, "nginx".to_owned(), "nginx".to_owned()))
        );
        assert_eq!(
            parse("sluicegate=/x/y"),
            Ok((Kind::Sluicegate, "sluicegate".to_owned(), "/x/y".to_owned()))
        );
        assert_eq!(
            parse("old:sluicegate=/x"),
            Ok((Kind::Sluicegate, "old".to_owned(), "/x".to_owned()))
        );
        assert_eq!(
            parse("sluicegate-llm"),
            Ok((
                Kind::SluicegateLlm,
                "sluicegate-llm".to_owned(),
                "sluicegate".to_owned()
            ))
        );
        assert_eq!(
            parse("vllm-router=/venv/bin/vllm-router").map(|(kind, ..)| kind),
            Ok(Kind::VllmRouter)
        );
        let error = parse("traefik").unwrap_err();
        assert!(error.contains("\"traefik\" is none of nginx,"), "{error}");
    }

    #[test]
    fn an_alias_is_as_long_as_the_name_it_stands_for() {
        assert_eq!(ALIAS.len(), MODEL.len());
    }

    #[test]
    fn the_interpreter_of_a_script_is_in_its_first_line() {
        let script = env::temp_dir().join(format!("loadtest-script-{}", std::process::id()));
        fs::write(&script, "#!/venv/bin/python3\nimport smg\n").unwrap();
        assert_eq!(
            interpreter(&script),
            Some(PathBuf::from("/venv/bin/python3"))
        );
        fs::write(&script, [0x7f, b'E', b'L', b'F', 0xff]).unwrap();
        assert_eq!(interpreter(&script), None);
        fs::remove_file(&script).unwrap();
    }
}
