//! Prometheus in a container comes from an address of Docker's network, not from loopback: the configuration that is
//! shipped lets it in, and nobody else.

use std::process::Command;

use crate::dashboards::monitoring;
use crate::gateway::{Directory, PROGRAM};
use crate::programs::{find, lacks};

/// In a network of its own: the addresses are the machine's, so that a client may have any of them.
const SCRIPT: &str = r#"
ip link set lo up
for address in "$@"; do ip addr add "$address/32" dev lo; done
"$PROGRAM" -c "$FILE" 2> "$LOG" &
trap 'kill $!' EXIT
tries=0
until curl -s -o /dev/null http://127.0.0.1/health; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || { cat "$LOG"; exit 1; }
    sleep 0.05
done
for address in "$@"; do
    for path in metrics stub_status health; do
        curl -s -o /dev/null -w "%{http_code} " --interface "$address" "http://$1/$path"
    done
done
"#;

#[test]
fn containers_of_the_monitoring_network_may_read_metrics_and_no_other_address_may() {
    let (Some(unshare), Some(_), Some(_)) = (find("unshare"), find("ip"), find("curl")) else {
        return;
    };
    let new_network = ["--map-root-user", "--net"];
    let may = Command::new(&unshare)
        .args(new_network)
        .arg("true")
        .status();
    if !may.is_ok_and(|status| status.success()) {
        return lacks("the permission to make a network namespace");
    }
    let compose = std::fs::read_to_string(monitoring().join("docker-compose.yml")).unwrap();
    let subnet = compose.split("MONITORING_SUBNET:-").nth(1).unwrap();
    let network = subnet.split("0/24").next().unwrap();
    let (container, another) = (format!("{network}5"), "172.18.0.5");

    let shipped = std::fs::read_to_string(monitoring().join("../sluicegate.yaml")).unwrap();
    let logged = "access_log: { path: /var/log/sluicegate/access.log }";
    assert!(shipped.contains(logged));
    let file = shipped.replace(logged, "access_log: null") + "\nadmin: null\npid_file: null\n";
    let directory = Directory::new();
    let output = Command::new(&unshare)
        .args(new_network)
        .args(["sh", "-euc", SCRIPT, "sh", &container, another, "127.0.0.1"])
        .env("PROGRAM", PROGRAM)
        .env("FILE", directory.write("sluicegate.yaml", &file))
        .env("LOG", directory.path().join("log"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        said.trim(),
        "200 200 200 403 403 200 200 200 200",
        "{complaints}"
    );
}
