use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::balance::RequestFacts;
use crate::config::PolicyName;
use crate::pool::testing::{config, config_endpoint, resolved};
use crate::pool::{Fault, Lease, Reason, State, Tried};
use crate::upstream::Address;

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];
const C: [u8; 4] = [10, 0, 0, 3];

fn cell(config: Config, resolved: &Resolved) -> SnapshotCell {
    let (snapshot, _) = Snapshot::build(Arc::new(config), resolved, None).unwrap();
    SnapshotCell::new(snapshot)
}

fn two_nodes() -> Resolved {
    resolved(&[("node0", &[A]), ("node1", &[B])])
}

fn apply(cell: &SnapshotCell, config: Config) -> String {
    let config = Arc::new(config);
    cell.apply(config, &two_nodes()).unwrap().to_string()
}

fn names_of(cell: &SnapshotCell) -> Vec<String> {
    let snapshot = cell.load();
    let endpoints = snapshot.default_pool().endpoints.iter();
    endpoints
        .map(|endpoint| endpoint.name.to_string())
        .collect()
}

fn state(cell: &SnapshotCell, index: usize) -> Arc<EndpointState> {
    Arc::clone(&cell.load().default_pool().endpoints[index].state)
}

fn lease(cell: &SnapshotCell) -> Lease {
    let pool = Arc::clone(cell.load().default_pool());
    let mut rng = fastrand::Rng::with_seed(1);
    pool.lease(
        &RequestFacts::default(),
        &Tried::new(),
        Instant::now(),
        &mut rng,
    )
    .unwrap()
}

#[test]
fn the_first_snapshot_is_epoch_one() {
    let config = Arc::new(config(&[
        "node0:8000",
        "[::1]:9000",
        "unix:/run/engine.sock",
    ]));
    let (snapshot, diff) = Snapshot::build(config, &two_nodes(), None).unwrap();
    assert_eq!(
        diff.to_string(),
        "epoch 1: +node0:8000, +[::1]:9000, +unix:/run/engine.sock"
    );
    assert_eq!((snapshot.epoch, snapshot.generation), (1, 1));
    let targets: Vec<_> = snapshot
        .endpoints()
        .map(|state| (state.target.address.clone(), state.target.authority.clone()))
        .collect();
    let tcp = |text: &str| Address::Tcp(text.parse::<SocketAddr>().unwrap());
    assert_eq!(
        targets,
        [
            (tcp("10.0.0.1:8000"), "node0:8000".to_owned()),
            (tcp("[::1]:9000"), "[::1]:9000".to_owned()),
            (
                Address::Unix("/run/engine.sock".into()),
                "localhost".to_owned()
            ),
        ]
    );
}

#[test]
fn a_configuration_without_a_pool_is_refused() {
    let mut config = config(&[]);
    config.pools.clear();
    let error = Snapshot::build(Arc::new(config), &Resolved::default(), None).unwrap_err();
    assert_eq!(error.to_string(), "there is no pool");
}

#[test]
fn a_reload_tells_what_is_different() {
    let cell = cell(config(&["node0:8000", "node1:8000"]), &two_nodes());
    assert_eq!(
        apply(&cell, config(&["node0:8000", "node1:8000"])),
        "epoch 1 -> 2: nothing changed"
    );

    let mut other = config(&["node0:8000", "10.0.0.9:8000"]);
    other.resolve = Duration::from_secs(5);
    let pool = &mut other.pools[0];
    pool.policy = PolicyName::RoundRobin;
    pool.retries = 1;
    pool.health.fall = 1;
    pool.endpoints[0].weight = 2;
    pool.endpoints[0].max_in_flight = Some(4);
    pool.endpoints[0].backup = true;
    pool.endpoints[0].api_key = Some(crate::config::Secret::new("s3cret".to_owned()));
    assert_eq!(
        apply(&cell, other),
        "epoch 2 -> 3: +10.0.0.9:8000, -node1:8000, node0:8000 weight 1 -> 2, \
         node0:8000 max_in_flight null -> 4, node0:8000 backup false -> true, node0:8000 api_key, \
         policy least_inflight -> round_robin, retries 3 -> 1, health, resolve"
    );

    let mut two = config(&["node0:8000"]);
    let mut second = two.pools[0].clone();
    second.name = Arc::from("big");
    two.pools.push(second);
    apply(&cell, config(&["node0:8000"]));
    assert_eq!(apply(&cell, two), "epoch 4 -> 5: +big/node0:8000");
    assert_eq!(
        apply(&cell, config(&["node0:8000"])),
        "epoch 5 -> 6: -pool big"
    );
}

#[test]
fn a_reload_tells_which_models_and_keys_are_different() {
    let of = |rest: &str| {
        let text = format!("endpoints: [\"node0:8000\"]\n{rest}");
        crate::config::parse_str(&text, "t.yaml", std::path::Path::new("/"), &|_| None).unwrap()
    };
    let cell = cell(of("models: { a: {} }"), &two_nodes());
    let more =
        of("models: { a: { upstream_model: b }, c: a }\nkeys: [{ name: team-a, key: s3cret }]");
    assert_eq!(
        apply(&cell, more),
        "epoch 1 -> 2: +model c, model a, keys: nobody without one may send requests, +key team-a"
    );
    assert_eq!(
        apply(
            &cell,
            of("models: { a: {} }\nkeys: [{ name: team-a, key: 0ther }]")
        ),
        "epoch 2 -> 3: -model c, model a, key team-a"
    );
}

#[test]
fn counts_and_health_outlive_a_reload() {
    let cell = cell(config(&["node0:8000"]), &two_nodes());
    let held = lease(&cell);
    let budget = Arc::clone(&cell.load().default_pool().retry_budget);
    state(&cell, 0).fault(Fault::ConnectRefused, Instant::now());

    let mut other = config(&["node1:8000", "node0:8000"]);
    other.pools[0].endpoints[1].weight = 7;
    other.pools[0].retry_budget.min_per_second = 0;
    apply(&cell, other);
    let after = state(&cell, 1);
    assert!(Arc::ptr_eq(&after, &held.endpoint().state));
    assert_eq!((after.in_flight(), after.is_up()), (1, false));
    assert!(Arc::ptr_eq(
        &budget,
        &cell.load().default_pool().retry_budget
    ));
    assert!(
        !budget.withdraw(Instant::now()),
        "the new settings are in effect"
    );
    drop(held);
    assert_eq!(after.in_flight(), 0);
}

#[test]
fn an_endpoint_that_only_a_stream_still_holds_is_found_again() {
    let cell = cell(config(&["node0:8000"]), &two_nodes());
    let held = lease(&cell);
    apply(&cell, config(&["node1:8000"]));
    assert_eq!(cell.load().endpoints().count(), 1);
    assert_eq!(cell.load().all_endpoints().count(), 2);
    apply(&cell, config(&["node0:8000", "node1:8000"]));
    assert_eq!(state(&cell, 0).in_flight(), 1);
    drop(held);

    // Nobody holds it any more: what comes back is new.
    let before = state(&cell, 0).id;
    apply(&cell, config(&["node1:8000"]));
    assert_eq!(cell.load().all_endpoints().count(), 1);
    apply(&cell, config(&["node0:8000"]));
    assert_ne!(state(&cell, 0).id, before);
}

#[test]
fn two_pools_share_an_endpoint() {
    let mut config = config(&["node0:8000"]);
    let mut second = config.pools[0].clone();
    second.name = Arc::from("big");
    second.health.fall = 9;
    config.pools.push(second);
    let cell = cell(config, &two_nodes());
    let snapshot = cell.load_full();
    assert_eq!(snapshot.endpoints().count(), 1);
    let [one, two] = &*snapshot.pools else {
        unreachable!()
    };
    assert!(Arc::ptr_eq(
        &one.endpoints[0].state,
        &two.endpoints[0].state
    ));
    assert_eq!(one.endpoints[0].state.settings().health.fall, 3);
}

#[test]
fn health_settings_of_a_new_epoch_take_effect() {
    let cell = cell(config(&["node0:8000"]), &two_nodes());
    let mut other = config(&["node0:8000"]);
    other.pools[0].health.eject_after = 1;
    apply(&cell, other);
    state(&cell, 0).fault(Fault::BadResponse, Instant::now());
    assert_eq!(state(&cell, 0).status(Instant::now()).state, State::Ejected);
}

#[test]
fn a_refused_configuration_changes_nothing() {
    let cell = cell(config(&["https://node0:8000"]), &two_nodes());
    let mut other = config(&["https://node0:8000"]);
    other.pools[0].health.eject_after = 1;
    other.pools[0].tls.ca = Some("/nonexistent/ca.pem".into());
    let error = cell.apply(Arc::new(other), &two_nodes()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot read the CA file /nonexistent/ca.pem: ")
    );
    assert_eq!((cell.load().epoch, cell.load().generation), (1, 1));
    assert_eq!(state(&cell, 0).settings().health.eject_after, 3);
}

#[test]
fn a_host_with_several_addresses_is_several_endpoints() {
    let answers = resolved(&[("node0", &[B, A, B]), ("node1", &[C])]);
    let cell = cell(config(&["node0:8000", "node1:8000"]), &answers);
    assert_eq!(
        names_of(&cell),
        ["node0:8000@10.0.0.1", "node0:8000@10.0.0.2", "node1:8000"]
    );
    assert_eq!(&*state(&cell, 0).settings().name, "node0:8000@10.0.0.1");
}

#[test]
fn other_addresses_keep_the_epoch() {
    let answers = resolved(&[("node0", &[A])]);
    let cell = cell(config(&["node0:8000"]), &answers);
    let first = state(&cell, 0);
    let changes = cell.changes();
    assert_eq!(cell.readdress(&answers).unwrap(), None);
    assert_eq!(cell.readdress(&Resolved::default()).unwrap(), None);
    assert!(!changes.has_changed().unwrap());

    let diff = cell
        .readdress(&resolved(&[("node0", &[A, B])]))
        .unwrap()
        .unwrap();
    assert_eq!(
        diff.to_string(),
        "epoch 1: +node0:8000@10.0.0.1, +node0:8000@10.0.0.2, -node0:8000"
    );
    assert!(changes.has_changed().unwrap());
    assert_eq!((cell.load().epoch, cell.load().generation), (1, 2));
    assert!(Arc::ptr_eq(&first, &state(&cell, 0)));
    assert_eq!(&*first.settings().name, "node0:8000@10.0.0.1");

    let diff = cell
        .readdress(&resolved(&[("node0", &[C])]))
        .unwrap()
        .unwrap();
    assert_eq!(
        diff.to_string(),
        "epoch 1: +node0:8000, -node0:8000@10.0.0.1, -node0:8000@10.0.0.2"
    );
    let diff = cell
        .readdress(&resolved(&[("node0", &[A])]))
        .unwrap()
        .unwrap();
    assert_eq!(diff.to_string(), "epoch 1: node0:8000 10.0.0.3 -> 10.0.0.1");
}

#[test]
fn a_drain_of_a_name_holds_for_its_next_address() {
    let cell = cell(config(&["node0:8000", "lost:8000"]), &Resolved::default());
    let readdress = |addresses: &[[u8; 4]]| {
        cell.readdress(&resolved(&[("node0", addresses)])).unwrap();
    };
    readdress(&[A]);
    state(&cell, 0).drain(Instant::now());
    readdress(&[B]);
    assert!(state(&cell, 0).is_draining());
    readdress(&[B, C]);
    assert!(state(&cell, 0).is_draining() && state(&cell, 1).is_draining());
    // By itself one of several says nothing of the name.
    state(&cell, 1).undrain(Instant::now());
    readdress(&[A]);
    assert!(!state(&cell, 0).is_draining());
    // Nor does another name.
    state(&cell, 1).drain(Instant::now());
    readdress(&[B]);
    assert!(!state(&cell, 0).is_draining());
}

#[test]
fn a_name_that_never_resolved_is_one_endpoint_that_is_down() {
    let (snapshot, diff) = Snapshot::build(
        Arc::new(config(&["node0:8000", "lost:8000"])),
        &resolved(&[("node0", &[A])]),
        None,
    )
    .unwrap();
    assert_eq!(
        diff.to_string(),
        "epoch 1: +node0:8000, +lost:8000 (does not resolve)"
    );
    let cell = SnapshotCell::new(snapshot);
    let status = state(&cell, 1).status(Instant::now());
    assert_eq!(status.state, State::Down);
    assert_eq!(status.reason, Some(Reason::Unresolved));
    assert_eq!(status.next_probe, None);
    for _ in 0..20 {
        assert_eq!(lease(&cell).index(), 0);
    }

    let diff = cell
        .readdress(&resolved(&[("lost", &[B])]))
        .unwrap()
        .unwrap();
    assert_eq!(
        diff.to_string(),
        "epoch 1: lost:8000 unresolved -> 10.0.0.2"
    );
    assert!(state(&cell, 1).is_up());
    // Lost again: the last address stays, also over a reload.
    let config = Arc::new(config(&["node0:8000", "lost:8000"]));
    let diff = cell.apply(config, &Resolved::default()).unwrap();
    assert!(diff.is_empty());
    assert!(state(&cell, 1).is_resolved());
}

#[test]
fn a_late_answer_does_not_undo_a_reload() {
    let cell = cell(config(&["node0:8000"]), &two_nodes());
    // The look-up of node0 is under way while this happens.
    apply(&cell, config(&["node1:8000"]));
    assert_eq!(cell.readdress(&resolved(&[("node0", &[C])])).unwrap(), None);
    assert_eq!(names_of(&cell), ["node1:8000"]);
    assert_eq!(cell.load().epoch, 2);
}

#[test]
fn round_robin_goes_on_over_a_reload() {
    let round_robin = |urls: &[&str]| {
        let mut config = config(urls);
        config.pools[0].policy = PolicyName::RoundRobin;
        config
    };
    let cell = cell(round_robin(&["node0:8000", "node1:8000"]), &two_nodes());
    assert_eq!(lease(&cell).index(), 0);
    apply(&cell, round_robin(&["node0:8000", "node1:8000"]));
    assert_eq!(lease(&cell).index(), 1);
    apply(&cell, round_robin(&["node1:8000", "node0:8000"]));
    assert_eq!(&*lease(&cell).name, "node1:8000");
    assert_eq!(&*lease(&cell).name, "node0:8000");
}

#[test]
fn other_tls_settings_are_another_endpoint_with_the_same_count() {
    let directory =
        std::env::temp_dir().join(format!("sluicegate-snapshot-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let ca = directory.join("ca.pem");
    let write = || {
        let certificate = rcgen::generate_simple_self_signed(vec!["node0".to_owned()]).unwrap();
        std::fs::write(&ca, certificate.cert.pem()).unwrap();
    };
    let with_ca = || {
        let mut config = config(&["https://node0:8000"]);
        config.pools[0].tls.ca = Some(ca.clone());
        config
    };
    write();
    let cell = cell(with_ca(), &two_nodes());
    let held = lease(&cell);
    let first = state(&cell, 0);
    assert_eq!(apply(&cell, with_ca()), "epoch 1 -> 2: nothing changed");
    assert!(Arc::ptr_eq(&first, &state(&cell, 0)));

    write();
    assert_eq!(apply(&cell, with_ca()), "epoch 2 -> 3: node0:8000 tls");
    let second = state(&cell, 0);
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(second.in_flight(), 1);

    // Other addresses read no file.
    std::fs::remove_dir_all(&directory).unwrap();
    let answers = resolved(&[("node0", &[C])]);
    assert!(cell.readdress(&answers).unwrap().is_some());
    drop(held);
    assert_eq!((first.in_flight(), second.in_flight()), (0, 0));
}

#[test]
fn the_same_endpoint_written_twice_is_one() {
    let mut config = config(&["node0:8000"]);
    config.pools[0]
        .endpoints
        .push(config_endpoint("node0:8000"));
    let cell = cell(config, &two_nodes());
    assert_eq!(cell.load().endpoints().count(), 1);
    let held = lease(&cell);
    assert_eq!(state(&cell, 1).in_flight(), 1);
    drop(held);
}
