//! What the guide's reader has when it comes to testing: a pool, a gateway in front, and a directory of files.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use loadtest::engine::{Engine, Script};

use crate::gateway::{Directory, Gateway, PROGRAM, Start};
use crate::influx::Influx;

/// Two engines, a gateway, and a home directory with the guide's `~/llm-cluster`.
pub struct World {
    pub engines: [Engine; 2],
    pub gateway: Gateway,
    pub influx: Option<Influx>,
    home: Directory,
}

impl World {
    /// Engines with this script; no limit of bodies recorded is needed here.
    pub async fn start(script: Script) -> Self {
        let script = Script {
            record: 0,
            ..script
        };
        let engines = [
            Engine::start(script.clone()).await.unwrap(),
            Engine::start(script).await.unwrap(),
        ];
        let endpoints = engines.each_ref().map(Engine::authority);
        let gateway = Start::new(&endpoints, "access_log: null\n").run();
        let home = Directory::new();
        let monitoring = home.path().join("llm-cluster/monitoring");
        copy(&repository("loadtest/k6"), &monitoring.join("scripts"));
        Self {
            engines,
            gateway,
            influx: None,
            home,
        }
    }

    /// With a database for k6.
    pub fn with(self, influx: Influx) -> Self {
        Self {
            influx: Some(influx),
            ..self
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs commands as they stand in the guide, in a shell of its reader, with this environment besides.
    /// The addresses are those of this world, for the ports of the guide may be taken.
    pub fn shell(&self, commands: &str, environment: &[(&str, String)]) -> Output {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!(
            "{}:{}:{path}:/usr/sbin:/sbin",
            target.join("clients/bin").display(),
            Path::new(PROGRAM).parent().unwrap().display()
        );
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &self.substituted(commands)])
            .env("PATH", path)
            .env("HOME", self.home.path())
            .env("K6_NO_USAGE_REPORT", "true")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path());
        tokio::task::block_in_place(|| command.output().unwrap())
    }

    /// Runs commands that succeed; what they print.
    pub fn succeed(&self, commands: &str) -> String {
        let output = self.shell(commands, &[]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{commands}: {}: {said}{complaints}",
            output.status
        );
        said
    }

    /// A clone of this repository in `~/sluicegate`: what commands of our pages read. The address that its examples
    /// have is this gateway's.
    pub fn clone_repository(&self) {
        let clone = self.path("sluicegate");
        for part in ["conf", "loadtest/k6", "loadtest/apache"] {
            copy(&repository(part), &clone.join(part));
        }
        let example = clone.join("loadtest/k6/.env.example");
        let text = std::fs::read_to_string(&example).unwrap();
        std::fs::remove_file(&example).unwrap();
        std::fs::write(&example, self.substituted(&text)).unwrap();
    }

    fn substituted(&self, commands: &str) -> String {
        let gateway = format!("http://{}", self.gateway.public);
        let mut commands = commands.to_owned();
        if let Some(influx) = &self.influx {
            commands = commands.replace(
                "http://localhost:8086",
                &format!("http://{}", influx.address),
            );
        }
        for address in ["http://localhost:4000", "http://localhost:8081"] {
            commands = commands.replace(address, &gateway);
        }
        for end in ["/", " "] {
            for port in ["", ":80"] {
                commands = commands.replace(
                    &format!("http://localhost{port}{end}"),
                    &format!("{gateway}{end}"),
                );
            }
        }
        commands
            .replace("127.0.0.1:9180", &self.gateway.admin.to_string())
            .replace("node0:8000", &self.engines[0].authority())
            .replace("node1:8000", &self.engines[1].authority())
            // The guide's.
            .replace(
                "/etc/nginx/nginx.conf",
                &repository("tests/import/files/guide.conf")
                    .display()
                    .to_string(),
            )
    }

    /// Answers that the engines ended as they meant to.
    pub async fn completed(&self) -> u64 {
        let mut completed = 0;
        for engine in &self.engines {
            completed += engine.settled().await.completed();
        }
        completed
    }

    /// Tokens that the engines generated.
    pub fn tokens(&self) -> u64 {
        self.engines.iter().map(Engine::tokens).sum()
    }
}

/// A quick engine.
pub fn quick() -> Script {
    Script {
        ttft: Duration::from_millis(20),
        itl: Duration::from_millis(2),
        tokens: 24,
        ..Script::default()
    }
}

/// A file or directory of ours.
pub fn repository(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Directories are made anew, so that commands can write into them; files are links.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            symlink(entry.path(), to).unwrap();
        }
    }
}
