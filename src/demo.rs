//! `sluicegate demo`: two simulated engines and the gateway on one machine, with no GPU.
//!
//! The engines are processes of their own, so that one can be killed, stopped and started again.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use loadtest::engine::{Engine, Listen, Script};
use log::LevelFilter;

use crate::config::{self, LogFormat};
use crate::listener::Role;
use crate::run::runtime;
use crate::server::Server;
use crate::tasks::signals::Signals;
use crate::tasks::supervisor::{Process, supervise};
use crate::telemetry::logging;

#[derive(Debug, Args)]
pub struct Demo {
    /// The gateway's port; 0 = any that is free
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Start, answer one request, stop: exit 0 when it was answered
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Args)]
pub struct DemoEngine {
    #[arg(long)]
    listen: SocketAddr,
}

impl DemoEngine {
    /// Serves as a simulated engine until it is killed or its standard input ends.
    pub fn run(self) -> ExitCode {
        let served = runtime().and_then(|runtime| {
            runtime.block_on(async {
                let script = Script {
                    listen: Listen::Tcp(self.listen),
                    ttft: Duration::from_millis(150),
                    itl: Duration::from_millis(40),
                    tokens: 64,
                    ..Script::default()
                };
                let engine = Engine::start(script).await.map_err(io::Error::other)?;
                println!("{}", engine.authority());
                tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()))
                    .await
                    .map_err(io::Error::other)?
            })
        });
        match served {
            Ok(_) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("the simulated engine could not be started: {e}");
                ExitCode::FAILURE
            }
        }
    }
}

impl Demo {
    pub fn run(self, signals: Signals) -> ExitCode {
        logging::start(LevelFilter::Info, LogFormat::Text);
        match self.try_run(signals) {
            Ok(code) => code,
            Err(problem) => {
                eprintln!("the demo could not be started: {problem}");
                ExitCode::FAILURE
            }
        }
    }

    fn try_run(self, signals: Signals) -> Result<ExitCode, String> {
        let engines = [start_engine()?, start_engine()?];
        let endpoints: Vec<String> = engines
            .iter()
            .map(|engine| engine.authority.clone())
            .collect();
        let listen = [format!("127.0.0.1:{}", self.port)];
        let mut config = config::from_command_line(&listen, &endpoints, None)
            .map_err(|mistakes| mistakes.to_string())?;
        config.access_log = None;
        let runtime = runtime().map_err(|e| e.to_string())?;
        runtime.block_on(async {
            let server = Server::start(config).await.map_err(|problem| {
                format!("{problem}\n`demo --port N` takes another port; 0 is any that is free")
            })?;
            let public = server
                .tcp_address(Role::Public)
                .ok_or("there is no listener")?;
            let answer = ask(public).await?;
            if self.once {
                println!("{answer}");
                server.stop().await;
                return Ok(ExitCode::SUCCESS);
            }
            explain(&server, public, &engines, text_of(&answer));
            Ok(supervise(server, signals, Process::default()).await)
        })
    }
}

struct DemoEngineProcess {
    child: Child,
    authority: String,
}

impl Drop for DemoEngineProcess {
    fn drop(&mut self) {
        // It may have been killed already: that is what the demo is for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_engine() -> Result<DemoEngineProcess, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut child = Command::new(program)
        .args(["demo-engine", "--listen", "127.0.0.1:0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Ctrl-C is for the gateway, which ends them.
        .process_group(0)
        .spawn()
        .map_err(|e| e.to_string())?;
    let stdout = child.stdout.take().ok_or("the engine has no output")?;
    let mut authority = String::new();
    BufReader::new(stdout)
        .read_line(&mut authority)
        .map_err(|e| e.to_string())?;
    let authority = authority.trim().to_owned();
    let engine = DemoEngineProcess { child, authority };
    if engine.authority.is_empty() {
        return Err("a simulated engine did not start".into());
    }
    Ok(engine)
}

const REQUEST: &str =
    r#"{"model":"DeepSeek-R1","messages":[{"role":"user","content":"Hello"}],"max_tokens":16}"#;

async fn ask(gateway: SocketAddr) -> Result<String, String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(gateway).await?;
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: {gateway}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{REQUEST}",
            REQUEST.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = exchange.await.map_err(|e| e.to_string())?;
    if !answer.starts_with("HTTP/1.1 200 ") {
        return Err(format!("the gateway answered: {answer}"));
    }
    Ok(answer)
}

/// What the model says in a whole HTTP answer.
fn text_of(answer: &str) -> Option<String> {
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    let said = body["choices"][0]["message"]["content"].as_str()?;
    Some(said.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn explain(
    server: &Server,
    public: SocketAddr,
    engines: &[DemoEngineProcess],
    said: Option<String>,
) {
    println!("\nThe gateway is at http://{public}, with two simulated engines behind it:");
    for engine in engines {
        println!("  {}  (process {})", engine.authority, engine.child.id());
    }
    if let Some(said) = said {
        println!(
            "\nAsked \"Hello\" through it, one of them said (they speak words at random):\n  {said}"
        );
    }
    println!("\nAsk it something:\n");
    println!(
        "  curl -N http://{public}/v1/chat/completions -H 'Content-Type: application/json' \\"
    );
    println!(
        "    -d '{}'",
        REQUEST.replace(r#""max_tokens":16"#, r#""stream":true"#)
    );
    if let Some(admin) = server.tcp_address(Role::Admin) {
        println!("\nLook at the endpoints, and at the metrics:\n");
        println!("  curl http://{admin}/endpoints");
        println!("  curl http://{admin}/metrics");
    }
    if let Some(engine) = engines.first() {
        println!("\nThen stop an engine and ask again: every request is still answered.\n");
        println!("  kill {}\n", engine.child.id());
    }
    println!("Ctrl-C ends it all.\n");
}
