//! A real InfluxDB 1.x on a free port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::gateway::{Directory, Lines};

/// Ended when dropped.
pub struct Influx {
    child: Child,
    pub address: SocketAddr,
    /// Its data.
    _directory: Directory,
}

impl Influx {
    /// Starts it; it answers when this returns.
    pub fn start(program: &Path) -> Self {
        let directory = Directory::new();
        let beneath = |name: &str| directory.path().join(name);
        let mut child = Command::new(program)
            .args(["run", "-config", "/dev/null"])
            .env("INFLUXDB_BIND_ADDRESS", "127.0.0.1:0")
            .env("INFLUXDB_HTTP_BIND_ADDRESS", "127.0.0.1:0")
            .env("INFLUXDB_META_DIR", beneath("meta"))
            .env("INFLUXDB_DATA_DIR", beneath("data"))
            .env("INFLUXDB_DATA_WAL_DIR", beneath("wal"))
            .env("INFLUXDB_MONITOR_STORE_ENABLED", "false")
            .env("INFLUXDB_REPORTING_DISABLED", "true")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::of(child.stderr.take().unwrap());
        let line = log.wait_for(1, "Listening on HTTP");
        let address = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("addr="));
        Self {
            child,
            address: address.unwrap().parse().unwrap(),
            _directory: directory,
        }
    }

    /// The series that a query of InfluxQL returns.
    ///
    /// # Panics
    /// When it is refused.
    pub fn query(&self, query: &str) -> Vec<Value> {
        let answer = self.ask(query);
        let result = &answer["results"][0];
        assert!(
            result["error"].is_null() && answer["error"].is_null(),
            "{query}: {answer}"
        );
        result["series"].as_array().cloned().unwrap_or_default()
    }

    /// The one number that a query returns; 0 when there are no points.
    pub fn number(&self, query: &str) -> f64 {
        let series = self.query(query);
        series.first().map_or(0.0, |series| {
            let value = &series["values"][0][1];
            value
                .as_f64()
                .unwrap_or_else(|| panic!("{query}: {series}"))
        })
    }

    fn ask(&self, query: &str) -> Value {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // In HTTP/1.0 an answer has no chunks.
        let request = format!(
            "GET /query?db=k6&q={} HTTP/1.0\r\n\r\n",
            percent_encoded(query)
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|e| panic!("{query}: {e}: {answer}"))
    }
}

impl Drop for Influx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn percent_encoded(text: &str) -> String {
    let bytes = text.bytes();
    bytes
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
