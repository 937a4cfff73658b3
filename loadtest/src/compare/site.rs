//! What each gateway is told: its configuration and its flags.

use std::fmt::Write as _;
use std::fs;
use std::io::Result;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::gateway::{ALIAS, KEY, Kind, MODEL};
use super::process::open_files;

/// What a configuration is written from.
pub(crate) struct Site<'a> {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub engines: &'a [SocketAddr],
    pub logs: bool,
    pub directory: &'a Path,
    /// Further keys of sluicegate's pool, as YAML has them between braces.
    pub pool: &'a str,
    /// Further lines of sluicegate's file.
    pub keys: &'a str,
}

impl Site<'_> {
    /// The configuration, where `kind` has one in a file.
    pub(crate) fn write(&self, kind: Kind) -> Result<()> {
        let text = match kind {
            Kind::Nginx => self.nginx(),
            Kind::Haproxy => self.haproxy(),
            Kind::Sluicegate => self.sluicegate("expose: all\n"),
            Kind::SluicegateLlm => self.sluicegate(&models_and_keys()),
            Kind::Litellm => self.litellm(),
            Kind::Smg | Kind::VllmRouter | Kind::Direct => return Ok(()),
        };
        fs::write(self.file(kind), text)
    }

    fn file(&self, kind: Kind) -> PathBuf {
        self.directory.join(match kind {
            Kind::Nginx => "nginx.conf",
            Kind::Haproxy => "haproxy.cfg",
            Kind::Litellm => "config.yaml",
            _ => "sluicegate.yaml",
        })
    }

    /// What starts it, as its documentation says.
    pub(crate) fn command(&self, kind: Kind, program: &Path) -> Command {
        let mut command = Command::new(program);
        let file = self.file(kind);
        match kind {
            Kind::Nginx => {
                command.arg("-p").arg(self.directory).arg("-c").arg(&file);
                command.args(["-g", "daemon off;"]);
            }
            Kind::Haproxy => {
                command.args(["-W", "-db", "-f"]).arg(&file);
            }
            Kind::Smg => {
                command.arg("launch");
                self.router(&mut command, "warn");
            }
            Kind::VllmRouter => self.router(&mut command, "warning"),
            Kind::Litellm => {
                command
                    .arg("--config")
                    .arg(&file)
                    .args(["--num_workers", "1"]);
                self.listen(&mut command);
                command
                    .env("LITELLM_MASTER_KEY", KEY)
                    // What its page on production says.
                    .env("LITELLM_LOG", "ERROR")
                    // It looks for prices on the network, and reports that it runs.
                    .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
                    .env("LITELLM_TELEMETRY", "False");
            }
            Kind::Sluicegate | Kind::SluicegateLlm | Kind::Direct => {
                command.arg("-c").arg(&file);
            }
        }
        command
    }

    fn listen(&self, command: &mut Command) {
        command
            .args(["--host", &self.address.ip().to_string()])
            .args(["--port", &self.address.port().to_string()]);
    }

    /// Both routers are of one origin and take the same flags. Their lines about requests come with the level
    /// that is their default.
    fn router(&self, command: &mut Command, quiet: &str) {
        self.listen(command);
        command
            .args(["--prometheus-host", &self.admin.ip().to_string()])
            .args(["--prometheus-port", &self.admin.port().to_string()])
            .arg("--worker-urls")
            .args(self.engines.iter().map(|engine| format!("http://{engine}")));
        if !self.logs {
            command.args(["--log-level", quiet]);
        }
    }

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

    /// `serves` is what it lets through: every path, or models for those with a key.
    fn sluicegate(&self, serves: &str) -> String {
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
        let engines = format!("endpoints: [{}]", engines.join(", "));
        let pool = match self.pool {
            "" => engines,
            more => format!("pools: {{ default: {{ {engines}, {more} }} }}"),
        };
        format!(
            "listen: \"{}\"\nadmin: [\"{}\"]\npid_file: \"{directory}/sluicegate.pid\"\n\
             access_log: {access_log}\n{pool}\n{serves}{}",
            self.address, self.admin, self.keys
        )
    }

    /// AMD's guide: least-busy, 3 retries, 300 s. Its access log cannot be switched off.
    fn litellm(&self) -> String {
        let mut text = "model_list:\n".to_owned();
        for engine in self.engines {
            _ = write!(
                text,
                "  - model_name: {ALIAS}\n    litellm_params:\n      model: openai/{MODEL}\n      \
                 api_base: http://{engine}/v1\n      api_key: none\n"
            );
        }
        text.push_str(
            "router_settings:\n  routing_strategy: least-busy\n  num_retries: 3\n  timeout: 300\n",
        );
        text
    }
}

/// Of Sluicegate. The limits are checked and never reached.
fn models_and_keys() -> String {
    format!(
        "models:\n  {ALIAS}: {{ upstream_model: {MODEL} }}\n  r1: {ALIAS}\nkeys:\n  - name: team-a\n    \
         key: \"{KEY}\"\n    models: [{ALIAS}]\n    requests_per_minute: {MANY}\n    \
         tokens_per_minute: {MANY}\n    max_in_flight: 1000000\n"
    )
}

/// More in a minute than two cores let through; it takes no more.
const MANY: u64 = 1_000_000_000;

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
