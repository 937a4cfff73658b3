use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use sluicegate::config::{self, Config, ListenAddress};
use sluicegate::listener::Role;
use sluicegate::pool::EndpointState;
use sluicegate::server::{Server, Shared};

use super::{Answer, Certificate, Request, TempDir, ask, until};

/// A gateway in this process. [`Gateway::finish`] ends it.
pub struct Gateway {
    server: Option<Server>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// The listener with TLS and h2, of [`Gateway::with_tls`].
    pub tls: Option<(SocketAddr, Certificate)>,
    files: TempDir,
}

/// What the tests want where they say nothing.
const DEFAULTS: [(&str, &str); 5] = [
    ("listen", "127.0.0.1:0"),
    ("admin", "127.0.0.1:0"),
    ("pid_file", "null"),
    ("access_log", "null"),
    ("threads", "2"),
];

/// The one pool, with keys beside its endpoints: `pool(&[a, b], "policy: round_robin")`.
pub fn pool(endpoints: &[String], keys: &str) -> String {
    let comma = if keys.is_empty() { "" } else { ", " };
    format!(
        "pools: {{ default: {{ endpoints: [{}]{comma}{keys} }} }}",
        endpoints.join(", ")
    )
}

/// A pool of two: the first is always asked first, the second only when that fails.
pub fn in_turn(first: &str, second: &str, keys: &str) -> String {
    let endpoints = [
        format!("\"{first}\""),
        format!("{{ url: \"{second}\", backup: true }}"),
    ];
    pool(&endpoints, keys)
}

impl Gateway {
    /// Starts with a configuration in YAML.
    pub async fn start(yaml: &str) -> Self {
        Self::launch(yaml, None).await
    }

    /// With a second listener that speaks TLS and h2.
    pub async fn with_tls(yaml: &str) -> Self {
        Self::launch(yaml, Some(Certificate::new())).await
    }

    async fn launch(yaml: &str, certificate: Option<Certificate>) -> Self {
        let files = TempDir::new();
        if let Some(certificate) = &certificate {
            std::fs::write(files.file("certificate.pem"), certificate.pem()).expect("a file");
            std::fs::write(files.file("key.pem"), certificate.key_pem()).expect("a file");
        }
        let yaml = with_listeners(yaml, certificate.is_some());
        let config = parse(&yaml, files.path());
        let server = Server::start(config).await.expect("the gateway starts");
        let public = addresses(&server, Role::Public);
        Self {
            address: public[0],
            admin: addresses(&server, Role::Admin)[0],
            tls: certificate.map(|certificate| (public[1], certificate)),
            server: Some(server),
            files,
        }
    }

    /// Where relative paths of the configuration begin.
    pub fn directory(&self) -> &Path {
        self.files.path()
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("the gateway runs")
    }

    pub fn shared(&self) -> &Arc<Shared> {
        self.server().shared()
    }

    /// Puts another configuration into effect.
    pub async fn reload(&self, yaml: &str) {
        let reloaded = self.try_reload(yaml).await;
        reloaded.unwrap_or_else(|problem| panic!("{problem}"));
    }

    /// The same; with [`Gateway::with_tls`] the listener's certificate is read again.
    pub async fn try_reload(&self, yaml: &str) -> Result<String, String> {
        let yaml = with_listeners(yaml, self.tls.is_some());
        let config = parse(&yaml, self.files.path());
        self.server()
            .reload(config)
            .await
            .map_err(|problem| problem.to_string())
    }

    /// Sends one request on a connection of its own.
    pub async fn ask(&self, request: &Request) -> Answer {
        ask(self.address, request).await
    }

    /// The endpoint at this place of the configuration.
    pub fn endpoint(&self, index: usize) -> Arc<EndpointState> {
        let snapshot = self.shared().snapshot.load();
        Arc::clone(&snapshot.pools[0].endpoints[index].state)
    }

    /// The public state of an endpoint.
    pub fn state(&self, index: usize) -> &'static str {
        self.endpoint(index)
            .status(tokio::time::Instant::now())
            .state
            .as_str()
    }

    pub async fn wait_for_state(&self, index: usize, states: &[&str]) {
        until(&format!("endpoint {index} to be {states:?}"), || {
            states.contains(&self.state(index))
        })
        .await;
    }

    /// A sample of `/metrics`, by its name and labels as they are shown; 0 where it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.shared().metrics.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Waits until a sample has this value: some are taken when an answer is already on its way.
    pub async fn wait_for_metric(&self, series: &str, value: f64) {
        until(&format!("{series} to be {value}"), || {
            self.metric(series) == value
        })
        .await;
    }

    /// Faults in a row that count against an endpoint.
    pub fn faults(&self, index: usize) -> u32 {
        self.endpoint(index)
            .status(tokio::time::Instant::now())
            .consecutive_faults
    }

    /// Requests sent again for this reason.
    pub fn retries(&self, reason: &str) -> f64 {
        self.metric(&format!(
            "sluicegate_retries_total{{pool=\"default\",reason=\"{reason}\"}}"
        ))
    }

    /// Streams that were cut, by what came of them.
    pub fn continuations(&self, result: &str) -> f64 {
        self.metric(&format!(
            "sluicegate_continuations_total{{pool=\"default\",result=\"{result}\"}}"
        ))
    }

    /// Waits until nothing is in flight, held or being answered, as it must be after every test.
    pub async fn quiet(&self) {
        let shared = self.shared();
        let left = || {
            let snapshot = shared.snapshot.load();
            let in_flight: u32 = snapshot
                .all_endpoints()
                .map(|endpoint| endpoint.in_flight())
                .sum();
            let queued: usize = snapshot.pools.iter().map(|pool| pool.queue.depth()).sum();
            let writing = shared.metrics.connection_counts.now().writing;
            (in_flight, queued, shared.body_memory.total(), writing)
        };
        until("everything to be given back", || left() == (0, 0, 0, 0)).await;
    }

    /// Insists that nothing is left of the requests, and stops.
    pub async fn finish(mut self) {
        self.quiet().await;
        let server = self.server.take().expect("the gateway runs");
        server.stop().await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.server.is_some() && !std::thread::panicking() {
            panic!("a test ends with Gateway::finish");
        }
    }
}

/// With TLS the second listener is on an address of its own, for that is what it is known by.
fn with_listeners(yaml: &str, tls: bool) -> String {
    let files = "{ certificate: certificate.pem, key: key.pem }";
    let second = format!("{{ address: \"127.0.0.2:0\", http2: true, tls: {files} }}");
    match tls && !yaml.contains("listen:") {
        true => format!("{yaml}\nlisten: [\"127.0.0.1:0\", {second}]\n"),
        false => yaml.to_owned(),
    }
}

fn parse(yaml: &str, base: &Path) -> Config {
    let mut text = String::new();
    for (key, value) in DEFAULTS {
        let given = |line: &str| {
            line.strip_prefix(key)
                .is_some_and(|rest| rest.starts_with(':'))
        };
        if !yaml.lines().any(given) {
            text.push_str(&format!("{key}: {value}\n"));
        }
    }
    text.push_str(yaml);
    config::parse_str(&text, "test.yaml", base, &|_| None)
        .unwrap_or_else(|problems| panic!("{problems}\nin\n{text}"))
}

fn addresses(server: &Server, role: Role) -> Vec<SocketAddr> {
    let of_role = server.addresses().iter().filter(|(of, _)| *of == role);
    of_role
        .filter_map(|(_, address)| match address {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        })
        .collect()
}
