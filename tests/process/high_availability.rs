//! Two gateways that share one address by `conf/ha/keepalived.conf` and the real keepalived, on hosts of their own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::network::possible;
use scene::{ADDRESS, NODE, Scene};
use traffic::{Answer, Traffic, request};

mod scene;
mod traffic;

/// How long clients may be without an answer.
const WITHIN: Duration = Duration::from_secs(3);
/// Long enough for an address that wanders to do so.
const WATCHED: Duration = Duration::from_secs(3);

#[test]
fn the_address_of_a_killed_gateway_moves_and_does_not_come_back() {
    if !possible(&["keepalived"]) {
        return;
    }
    let mut scene = Scene::new();
    let traffic = Traffic::of(&scene);
    let (first, moves) = (scene.settled(&traffic), scene.moves());

    let killed = Instant::now();
    scene.pairs[first].gateway = None;
    let gap = traffic.answered_after(killed, 200);
    eprintln!("clients were without an answer for {gap:?}");
    assert!(gap < WITHIN, "{gap:?}");
    let second = scene.settled(&traffic);
    assert_ne!(first, second);

    // Back, it is no better than the other, and leaves the address where it is.
    let back = Instant::now();
    scene.start_gateway(first);
    let recovered = " to 100";
    scene.log(first).wait_for(1, recovered);
    thread::sleep(WATCHED);
    assert_eq!(scene.holder(), Some(second));
    assert_eq!(scene.moves(), moves + 1);
    for (asked, answer) in traffic.since(back) {
        assert_eq!(answer, Answer::Status(200), "asked after {asked:?}");
    }
}

#[test]
fn the_address_of_a_host_that_is_gone_moves() {
    if !possible(&["keepalived"]) {
        return;
    }
    let scene = Scene::new();
    let traffic = Traffic::of(&scene);
    let first = scene.settled(&traffic);

    scene.switch.pull_the_cable_of(&scene.pairs[first].host);
    let gone = Instant::now();
    let gap = traffic.answered_after(gone, 200);
    eprintln!("clients were without an answer for {gap:?}");
    assert!(gap < WITHIN, "{gap:?}");
    assert!(scene.pairs[1 - first].host.has(ADDRESS));

    // Both have it when the host is back, until one of them hears of the other.
    scene.switch.plug_the_cable_of(&scene.pairs[first].host);
    scene.settled(&traffic);
}

#[test]
fn a_gateway_that_hangs_loses_the_address() {
    if !possible(&["keepalived"]) {
        return;
    }
    let scene = Scene::new();
    let traffic = Traffic::of(&scene);
    let first = scene.settled(&traffic);

    let gateway = scene.pairs[first].gateway.as_ref().unwrap();
    gateway.signal(Signal::SIGSTOP);
    let hung = Instant::now();
    let gap = traffic.answered_after(hung, 200);
    eprintln!("clients were without an answer for {gap:?}");
    // The check itself waits two seconds for an answer.
    assert!(gap < WITHIN + Duration::from_secs(2), "{gap:?}");
    assert_eq!(scene.settled(&traffic), 1 - first);
}

#[test]
fn with_every_engine_dead_the_address_stays_and_answers_503() {
    if !possible(&["keepalived"]) {
        return;
    }
    let mut scene = Scene::new();
    let traffic = Traffic::of(&scene);
    scene.settled(&traffic);

    let died = Instant::now();
    scene.engine = None;
    for number in [0, 1] {
        let lowered = "Changing effective priority from 100 to 80";
        scene.log(number).wait_for(1, lowered);
    }
    // A move that had begun before ends with the next advertisement.
    thread::sleep(Duration::from_millis(500));
    let (held, moves) = (scene.holder(), scene.moves());
    let both_down = Instant::now();
    thread::sleep(WATCHED);
    for (asked, answer) in traffic.since(both_down) {
        assert_eq!(answer, Answer::Status(503), "asked after {asked:?}");
    }
    assert!(held.is_some());
    assert_eq!((scene.holder(), scene.moves()), (held, moves));

    scene.start_engine();
    let back = Instant::now();
    traffic.answered_after(back, 200);
    for number in [0, 1] {
        let raised = " to 100";
        scene.log(number).wait_for(1, raised);
        assert_eq!(scene.log(number).count("FAULT"), 0);
    }
    // Whichever saw the engine die last, and come back first, may have had the address for that while; nobody was
    // ever left without an answer.
    scene.settled(&traffic);
    assert!(scene.moves() <= moves + 1);
    let mut last = Duration::ZERO;
    for (asked, answer) in traffic.since(died) {
        if matches!(answer, Answer::Status(_)) {
            assert!(asked - last < WITHIN, "no answer until {asked:?}");
            last = asked;
        }
    }
}

#[test]
fn a_gateway_that_alone_has_lost_its_engines_gives_the_address_away() {
    if !possible(&["keepalived"]) {
        return;
    }
    let scene = Scene::new();
    let traffic = Traffic::of(&scene);
    let first = scene.settled(&traffic);

    scene.pairs[first]
        .host
        .ip(&format!("route add unreachable {NODE}"));
    let lowered = "Changing effective priority from 100 to 80";
    scene.log(first).wait_for(1, lowered);
    let from = Instant::now();
    let gap = traffic.answered_after(from, 200);
    assert!(gap < WITHIN, "{gap:?}");
    assert_eq!(scene.settled(&traffic), 1 - first);
}

#[test]
fn streams_that_an_address_leaves_behind_end_at_once() {
    if !possible(&["keepalived"]) {
        return;
    }
    for by in ["the gateway's end", "keepalived's end"] {
        let scene = Scene::new();
        let traffic = Traffic::of(&scene);
        let first = scene.settled(&traffic);
        let (begun, has_begun) = mpsc::channel();
        let stream = scene.client.spawn(move || {
            let mut stream = TcpStream::connect((ADDRESS, 80)).unwrap();
            stream.write_all(request(true).as_bytes()).unwrap();
            stream.set_read_timeout(Some(WITHIN)).unwrap();
            let mut piece = [0; 4096];
            assert!(stream.read(&mut piece).unwrap() > 0);
            begun.send(()).unwrap();
            loop {
                match stream.read(&mut piece) {
                    Ok(0) => break "a clean end".to_owned(),
                    Ok(_) => {}
                    Err(problem) => break problem.kind().to_string(),
                }
            }
        });
        has_begun.recv().unwrap();

        let left = Instant::now();
        let pair = &scene.pairs[first];
        let ending = if by == "the gateway's end" {
            pair.gateway.as_ref()
        } else {
            pair.keepalived.as_ref()
        };
        ending.unwrap().signal(Signal::SIGTERM);
        // The gateway lets its streams finish, which the address does not wait for.
        assert_eq!(stream.join().unwrap(), "connection reset", "by {by}");
        eprintln!("by {by} a stream ended after {:?}", left.elapsed());
        assert!(left.elapsed() < WITHIN, "by {by}: {:?}", left.elapsed());
        assert_eq!(scene.settled(&traffic), 1 - first);
    }
}
