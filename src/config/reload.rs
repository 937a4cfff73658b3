//! What a reload cannot change.

use super::{Config, Listen};

/// The keys that differ and take effect only after a restart: sockets are bound and threads started
/// once. Certificates are not among them: their paths and contents are taken by a reload.
pub fn restart_needed(old: &Config, new: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    let mut differs = |key: &str, differs: bool| {
        if differs {
            keys.push(key.to_owned());
        }
    };
    differs("listen", !same_sockets(&old.listen, &new.listen));
    differs("admin", !same_sockets(&old.admin, &new.admin));
    differs("threads", old.threads != new.threads);
    differs("pid_file", old.pid_file != new.pid_file);
    keys
}

/// The order of the list does not matter.
fn same_sockets(old: &[Listen], new: &[Listen]) -> bool {
    let socket = |l: &Listen| (l.address.clone(), l.tls.is_some(), l.http2);
    old.len() == new.len()
        && old
            .iter()
            .all(|l| new.iter().any(|other| socket(l) == socket(other)))
}
