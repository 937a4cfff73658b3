//! The gateways: how each is configured, started, and seen to be ready.

use std::fmt::Write as _;
use std::fs;
use std::io::{Error, Result};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::client;
use super::process::{Process, open_files};

const PATIENCE: Duration = Duration::from_secs(20);

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
    Sluicegate,
    /// No gateway: the first engine.
    Direct,
}

/// `nginx`, `haproxy`, `sluicegate`, or `KIND=PROGRAM`, or `LABEL:KIND=PROGRAM` to tell two builds apart.
impl FromStr for Gateway {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, program) = text.split_once('=').unwrap_or((text, ""));
        let (label, kind) = name.split_once(':').unwrap_or((name, name));
        let kind = match kind {
            "nginx" => Kind::Nginx,
            "haproxy" => Kind::Haproxy,
            "sluicegate" => Kind::Sluicegate,
            _ => return Err(format!("{kind:?} is none of nginx, haproxy, sluicegate")),
        };
        let program = if program.is_empty() {
            match kind {
                Kind::Nginx => "nginx",
                Kind::Haproxy => "haproxy",
                _ => "sluicegate",
            }
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

    /// What the program says of its version.
    pub(super) fn version(&self) -> String {
        let flag = if self.kind == Kind::Nginx || self.kind == Kind::Haproxy {
            "-v"
        } else {
            "-V"
        };
        let Ok(output) = Command::new(&self.program).arg(flag).output() else {
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
        if self.kind == Kind::Direct {
            return Ok(Running {
                address: engines[0],
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
        };
        let mut command = Command::new(&self.program);
        let file = directory.join(match self.kind {
            Kind::Nginx => "nginx.conf",
            Kind::Haproxy => "haproxy.cfg",
            _ => "sluicegate.yaml",
        });
        fs::write(&file, self.configuration(&site))?;
        match self.kind {
            Kind::Nginx => command
                .arg("-p")
                .arg(directory)
                .arg("-c")
                .arg(&file)
                .args(["-g", "daemon off;"]),
            Kind::Haproxy => command.args(["-W", "-db", "-f"]).arg(&file),
            _ => command.arg("-c").arg(&file),
        };
        let log = directory.join("output.log");
        let start = Instant::now();
        let mut process = Process::start(command, &log)?;
        let request = client::post(address, client::SHORT_PROMPT, 1, false);
        while !client::answers(address, &request).await {
            let output = || fs::read_to_string(&log).unwrap_or_default();
            process
                .check()
                .map_err(|error| Error::other(format!("{error}\n{}", output())))?;
            if start.elapsed() > PATIENCE {
                return Err(Error::other(format!(
                    "{} does not answer\n{}",
                    self.name,
                    output()
                )));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Running {
            address,
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
        let admin = running.admin.unwrap_or(running.address);
        let site = Site {
            address: running.address,
            admin,
            engines,
            logs: false,
            directory,
        };
        let file = match self.kind {
            Kind::Nginx => "nginx.conf",
            Kind::Haproxy => "haproxy.cfg",
            _ => "sluicegate.yaml",
        };
        fs::write(directory.join(file), self.configuration(&site))
    }

    fn configuration(&self, site: &Site<'_>) -> String {
        match self.kind {
            Kind::Nginx => site.nginx(),
            Kind::Haproxy => site.haproxy(),
            _ => site.sluicegate(),
        }
    }
}

/// A gateway that runs.
pub(super) struct Running {
    pub address: SocketAddr,
    pub admin: Option<SocketAddr>,
    /// None without a gateway.
    pub process: Option<Process>,
    /// From its start to the first answer through it.
    pub ready: Duration,
}

/// A port that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// What a configuration is written from.
struct Site<'a> {
    address: SocketAddr,
    admin: SocketAddr,
    engines: &'a [SocketAddr],
    logs: bool,
    directory: &'a Path,
}

impl Site<'_> {
    /// AMD's guide: least_conn without a zone, keepalive 32, HTTP/1.1 upstream, 300 s, buffering on. Added are
    /// places to write to, room for connections, and a body buffer that spares nginx a temporary file a prompt.
    fn nginx(&self) -> String {
        let directory = self.directory.display();
        let access_log = if self.logs {
            format!("{directory}/access.log combined")
        } else {
            "off".to_owned()
        };
        let user = if is_root() { "user root;\n" } else { "" };
        let mut text = format!(
            "{user}worker_processes auto;\npid {directory}/nginx.pid;\nerror_log {directory}/error.log;\n\
             events {{ worker_connections {connections}; }}\nhttp {{\n  access_log {access_log};\n  \
             client_body_temp_path {directory}/body;\n  proxy_temp_path {directory}/proxy;\n  \
             fastcgi_temp_path {directory}/fastcgi;\n  uwsgi_temp_path {directory}/uwsgi;\n  \
             scgi_temp_path {directory}/scgi;\n  client_max_body_size 64m;\n  client_body_buffer_size 1m;\n  \
             keepalive_requests 1000000;\n  upstream vllm_pool {{\n    least_conn;\n",
            connections = open_files().min(65_535),
        );
        for engine in self.engines {
            _ = writeln!(text, "    server {engine};");
        }
        _ = write!(
            text,
            "    keepalive 32;\n  }}\n  server {{\n    listen {};\n    location /health {{ return 200 \"healthy\\n\"; \
             }}\n    location / {{\n      proxy_pass http://vllm_pool;\n      proxy_http_version 1.1;\n      \
             proxy_set_header Connection \"\";\n      proxy_set_header Host $host;\n      \
             proxy_set_header X-Real-IP $remote_addr;\n      \
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n      proxy_connect_timeout 300s;\n      \
             proxy_send_timeout 300s;\n      proxy_read_timeout 300s;\n      proxy_buffering on;\n      \
             proxy_buffer_size 16k;\n      proxy_buffers 8 16k;\n    }}\n  }}\n}}\n",
            self.address
        );
        text
    }

    fn haproxy(&self) -> String {
        let (log, option) = if self.logs {
            (
                "  log stdout format raw local0\n",
                "  log global\n  option httplog\n",
            )
        } else {
            ("", "")
        };
        let mut text = format!(
            "global\n  maxconn {}\n{log}defaults\n  mode http\n{option}  option forwardfor\n  timeout connect 5s\n  \
             timeout client 300s\n  timeout server 300s\n  timeout http-keep-alive 65s\nfrontend gateway\n  bind {}\n  \
             default_backend engines\nbackend engines\n  balance leastconn\n",
            open_files().saturating_sub(1000) / 2,
            self.address
        );
        for (index, engine) in self.engines.iter().enumerate() {
            _ = writeln!(text, "  server engine{index} {engine}");
        }
        text
    }

    fn sluicegate(&self) -> String {
        let directory = self.directory.display();
        let access_log = if self.logs {
            format!("{{ path: \"{directory}/access.log\", format: json }}")
        } else {
            "null".to_owned()
        };
        let engines: Vec<_> = self
            .engines
            .iter()
            .map(|engine| format!("\"{engine}\""))
            .collect();
        format!(
            "listen: \"{}\"\nadmin: [\"{}\"]\npid_file: \"{directory}/sluicegate.pid\"\nexpose: all\n\
             access_log: {access_log}\nendpoints: [{}]\n",
            self.address,
            self.admin,
            engines.join(", ")
        )
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
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
        assert!(parse("traefik").is_err());
    }
}
