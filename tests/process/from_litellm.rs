//! The same requests through the real LiteLLM with a file and through Sluicegate with what
//! `sluicegate import` makes of it. What the engines were asked and what the clients were told may
//! differ only where docs/from-litellm.md says so: each difference below is a place in that page.
//!
//! `tests/clients/litellm.sh` installs LiteLLM, names it in `LITELLM` and runs this; `.ci/full` does so.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::gateway::{Directory, Gateway, Lines, PROGRAM, Start, ended};
use crate::recorder::Recorder;

mod allowed;
mod observed;
mod requests;
mod times;

use allowed::{ALLOWED, Side};
use observed::observe;
use requests::cases;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/from-litellm.md");
const GUIDE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/import/litellm/files/guide.yaml"
);
/// Twelve seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// LiteLLM does not start with one that is published.
pub const KEY: &str = "sk-T3wQzK8mX1vB6nR4cY9dLpEa";

/// A running LiteLLM; stopped when dropped.
struct LiteLlm {
    child: Child,
    address: SocketAddr,
    log: Lines,
}

impl LiteLlm {
    fn start(program: &Path, config: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut child = Command::new(program)
            .arg("--config")
            .arg(config)
            .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
            .env("LITELLM_MASTER_KEY", KEY)
            .env("ENGINE_KEY", "sk-of-the-engine")
            .env("OPENAI_API_KEY", "sk-of-the-environment")
            // It looks for prices on the network, and reports that it runs.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .env("LITELLM_TELEMETRY", "False")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::of(child.stderr.take().unwrap());
        let begun = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            let status = child.try_wait().unwrap();
            assert!(
                status.is_none(),
                "LiteLLM ended: {status:?}: {:#?}",
                log.all()
            );
            assert!(
                begun.elapsed() < PATIENCE,
                "LiteLLM does not listen: {:#?}",
                log.all()
            );
            thread::sleep(Duration::from_millis(50));
        }
        Self {
            child,
            address,
            log,
        }
    }
}

impl Drop for LiteLlm {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        if ended(&mut self.child, Duration::from_secs(20)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("LiteLLM's log:\n{}", self.log.all().join("\n"));
        }
    }
}

/// The guide's file with these engines, an alias, and a second model on a third engine.
fn written(engines: &[Recorder]) -> String {
    let guide = fs::read_to_string(GUIDE).unwrap();
    let [first, second, third] = engines else {
        panic!("three engines")
    };
    let embed = format!(
        "  - model_name: embed\n    litellm_params:\n      model: hosted_vllm/bge-m3\n      \
         api_base: http://{}/v1\n      api_key: os.environ/ENGINE_KEY\n\nrouter_settings:\n  \
         model_group_alias: {{ r1: DeepSeek-R1 }}\n",
        third.authority()
    );
    let replaced = guide
        .replace("vllm-model0:8000", &first.authority())
        .replace("vllm-model1:8000", &second.authority())
        .replace("router_settings:\n", &embed);
    assert!(replaced.contains("r1:") && replaced.contains(&second.authority()));
    replaced
}

/// What `sluicegate import` prints for a file, which it lists the differences of.
fn imported(path: &Path) -> String {
    let output = Command::new(PROGRAM)
        .arg("import")
        .arg(path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

async fn engines() -> Vec<Recorder> {
    let mut engines = Vec::new();
    for _ in 0..3 {
        engines.push(Recorder::start().await);
    }
    engines
}

/// What only one of them has.
fn different(litellm: Vec<String>, ours: &[String]) -> Vec<(Side, String)> {
    let mut rest = ours.to_vec();
    let mut different = Vec::new();
    for line in litellm {
        match rest.iter().position(|other| *other == line) {
            Some(index) => drop(rest.remove(index)),
            None => different.push((Side::LiteLlm, line)),
        }
    }
    different.extend(rest.into_iter().map(|line| (Side::Sluicegate, line)));
    different
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_imported_file_does_what_litellm_does_but_for_what_the_page_lists() {
    let Some(program) = std::env::var_os("LITELLM").map(PathBuf::from) else {
        eprintln!("left out: tests/clients/litellm.sh installs LiteLLM and runs this");
        return;
    };
    let directory = Directory::new();
    let litellm_engines = engines().await;
    let config = directory.write("config.yaml", &written(&litellm_engines));
    let litellm = tokio::task::block_in_place(|| LiteLlm::start(&program, &config));
    let our_engines = engines().await;
    // The same file, but for the engines' addresses.
    let yaml = imported(&directory.write("ours.yaml", &written(&our_engines)));
    let listen = "listen: 0.0.0.0:4000\n";
    assert!(yaml.starts_with(listen), "{yaml}");
    // Its port comes from the system.
    let gateway: Gateway = Start::with_keys(&yaml[listen.len()..])
        .environment("LITELLM_MASTER_KEY", KEY)
        .environment("ENGINE_KEY", "sk-of-the-engine")
        .run();

    let page = fs::read_to_string(PAGE).unwrap();
    let cases = cases();
    let mut seen: BTreeSet<(usize, &str)> = BTreeSet::new();
    let mut unexpected = Vec::new();
    for case in &cases {
        let theirs = observe(case, litellm.address, &litellm_engines).await;
        let ours = observe(case, gateway.public, &our_engines).await;
        if std::env::var_os("SHOW").is_some() {
            eprintln!("{}\n  {theirs:#?}\n  {ours:#?}", case.name);
        }
        for (side, line) in different(theirs, &ours) {
            let known: Vec<_> = (ALLOWED.iter().enumerate())
                .filter(|(_, allowed)| allowed.covers(case.name, side, &line))
                .map(|(index, _)| (index, case.name))
                .collect();
            if known.is_empty() {
                unexpected.push(format!("{}: {side:?}: {line}", case.name));
            }
            seen.extend(known);
        }
    }
    assert!(
        unexpected.is_empty(),
        "differences that docs/from-litellm.md does not have:\n{}",
        unexpected.join("\n")
    );
    for (index, allowed) in ALLOWED.iter().enumerate() {
        assert!(
            page.contains(&format!("<a id=\"{}\"></a>", allowed.id)),
            "docs/from-litellm.md has no {}",
            allowed.id
        );
        let is_seen = match allowed.cases {
            [] => seen.iter().any(|(i, _)| *i == index),
            all => all.iter().all(|case| seen.contains(&(index, case))),
        };
        assert!(is_seen, "it is not different any more: {allowed:?}");
    }
}

/// Of a file of LiteLLM's the command prints the configuration, and says what it left out.
#[test]
fn the_command_imports_a_config_yaml() {
    let run = |arguments: &[&str]| {
        let output = Command::new(PROGRAM)
            .arg("import")
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let directory = Directory::new();
    let guide = fs::read_to_string(GUIDE).unwrap();
    let config = directory.write("config.yaml", &guide);
    let config = config.to_str().unwrap();
    let (code, out, err) = run(&[config]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("endpoints: [vllm-model0:8000, vllm-model1:8000]"),
        "{out}"
    );
    assert!(
        err.starts_with(&format!("{config}:4: api_key: differs: ")),
        "{err}"
    );
    let (code, out, err) = run(&["--strict", config]);
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(err.contains("no configuration is printed (--strict)"));
    let (code, out, err) = run(&["--upstream", "a", config]);
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(err.contains("leave out --upstream"), "{err}");

    // What is printed passes -t where its variables are set.
    let (_, yaml, _) = run(&[config]);
    let file = directory.write("sluicegate.yaml", &yaml);
    let test = |key: Option<&str>| {
        let mut command = Command::new(PROGRAM);
        command.arg("-t").arg("-c").arg(&file);
        match key {
            Some(key) => command.env("LITELLM_MASTER_KEY", key),
            None => command.env_remove("LITELLM_MASTER_KEY"),
        };
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (passes, said) = test(Some(KEY));
    assert!(passes && said.contains("successful"), "{said}");
    let (passes, said) = test(None);
    assert!(!passes && said.contains("LITELLM_MASTER_KEY"), "{said}");
}
