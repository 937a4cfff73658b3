//! How long a reload with 200 endpoints takes.

use std::io::{Error, Result};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::gateway::{Gateway, Kind, Running};
use super::plans::Subject;
use super::table::Figure;
use crate::engine::{Engine, Script};

const ENDPOINTS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);

/// Reloads a gateway of 200 endpoints with one of them changed, and waits until the new configuration is in force:
/// sluicegate says so in its metrics; nginx and HAProxy have new workers then.
pub(super) async fn measure(subject: &Subject<'_>) -> Result<Vec<(Figure, f64)>> {
    let mut engines = Vec::with_capacity(ENDPOINTS + 1);
    for _ in 0..=ENDPOINTS {
        engines.push(
            Engine::start(Script {
                record: 0,
                fixed: true,
                ..Script::default()
            })
            .await?,
        );
    }
    let addresses: Vec<_> = engines.iter().map(Engine::addr).collect();
    let gateway = subject.gateway;
    let running = gateway
        .start(
            &addresses[..ENDPOINTS],
            subject.settings.logs,
            subject.directory,
        )
        .await?;
    let Some(process) = &running.process else {
        return Ok(Vec::new());
    };
    sleep(Duration::from_millis(500)).await;
    gateway.reconfigure(&running, &addresses[1..], subject.directory)?;
    let before = state(gateway, &running).await?;
    let start = Instant::now();
    process.signal(if gateway.kind == Kind::Haproxy {
        "USR2"
    } else {
        "HUP"
    })?;
    loop {
        sleep(Duration::from_millis(1)).await;
        if state(gateway, &running)
            .await
            .is_ok_and(|state| state != before)
        {
            return Ok(vec![(
                Figure::ReloadMs,
                start.elapsed().as_secs_f64() * 1e3,
            )]);
        }
        if start.elapsed() > PATIENCE {
            return Err(Error::other(format!("{} does not reload", gateway.name)));
        }
    }
}

/// Something that is another thing once a reload is done.
async fn state(gateway: &Gateway, running: &Running) -> Result<String> {
    if let (Kind::Sluicegate | Kind::SluicegateLlm, Some(admin)) = (gateway.kind, running.admin) {
        let metrics = get(admin, "/metrics").await?;
        let epoch = metrics
            .lines()
            .find(|line| line.starts_with("sluicegate_config_epoch"));
        return epoch
            .map(str::to_owned)
            .ok_or_else(|| Error::other("no sluicegate_config_epoch in /metrics"));
    }
    // Old workers stay for a while; the newest tells.
    let newest = running
        .process
        .as_ref()
        .and_then(|process| process.tree().pop_last());
    Ok(format!("{newest:?}"))
}

async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
