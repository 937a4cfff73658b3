//! What a gateway says of itself, and what its process holds. Blocking: for the thread of the faults.

use std::fs;
use std::io::{Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

/// The body of a 200.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if !head.starts_with("HTTP/1.1 200") {
        return Err(Error::other(format!("{path}: {head}")));
    }
    Ok(body.to_owned())
}

/// What `/endpoints` of Sluicegate says of one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndpointState {
    pub is_up: bool,
    pub reason: String,
}

/// `None` when it does not know the engine.
pub(super) fn endpoint(text: &str, engine: SocketAddr) -> Option<EndpointState> {
    let endpoints: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    let name = engine.to_string();
    let endpoint = endpoints
        .iter()
        .find(|one| one["endpoint"] == name.as_str())?;
    Some(EndpointState {
        is_up: endpoint["state"] == "up",
        reason: endpoint["reason"].as_str().unwrap_or_default().to_owned(),
    })
}

/// The sum of a metric's series, each label set that contains `label`.
pub(super) fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with(['{', ' ']) || !rest.contains(label) {
            return None;
        }
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    };
    metrics.lines().filter_map(value).sum()
}

/// How many series there are.
pub(super) fn series(metrics: &str) -> usize {
    let is_one = |line: &&str| !line.is_empty() && !line.starts_with('#');
    metrics.lines().filter(is_one).count()
}

/// Resident memory of a process in bytes, and its open files.
pub(super) fn held(pid: u32) -> Result<(u64, usize)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    let files = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    Ok((resident.unwrap_or_default() * 1024, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_found_by_its_name() {
        let text = "[\n{\"endpoint\":\"127.0.0.1:1\",\"state\":\"up\",\"reason\":null},\n\
                    {\"endpoint\":\"127.0.0.1:2\",\"state\":\"ejected\",\"reason\":\"refused\"}\n]\n";
        let state = |port| endpoint(text, SocketAddr::from(([127, 0, 0, 1], port)));
        assert!(state(1).is_some_and(|state| state.is_up));
        assert!(state(2).is_some_and(|state| !state.is_up && state.reason == "refused"));
        assert_eq!(state(3), None);
    }

    #[test]
    fn series_are_summed_and_counted() {
        let text = "# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"2\",y=\"2\"} 4\nab{x=\"1\"} 100\nb 5\n";
        assert_eq!(sum(text, "a", ""), 7.0);
        assert_eq!(sum(text, "a", "x=\"2\""), 4.0);
        assert_eq!(sum(text, "b", ""), 5.0);
        assert_eq!(series(text), 4);
    }

    #[test]
    fn a_process_holds_memory_and_files() {
        let (memory, files) = held(std::process::id()).unwrap();
        assert!(memory > 1 << 20 && files > 2);
    }
}
