//! `loadtest survive`, short: every fault once, a reload and an upgrade, and no client loses anything.

use std::path::{Path, PathBuf};
use std::time::Duration;

use loadtest::survive::{Fault, Faults, Settings, markdown, run};

use crate::gateway::{Directory, PROGRAM};
use crate::programs;

/// The engines are processes of it. It is beside the program under test where the whole workspace was built.
fn loadtest() -> Option<PathBuf> {
    let path = Path::new(PROGRAM).with_file_name("loadtest");
    if !path.exists() {
        programs::lacks("loadtest");
        return None;
    }
    Some(path)
}

fn settings(engine_program: PathBuf, directory: &Directory) -> Settings {
    Settings {
        gateways: vec![format!("sluicegate={PROGRAM}").parse().unwrap()],
        engines: 4,
        engine_program,
        streams: 12,
        itl: Duration::from_millis(5),
        tokens: 120,
        connects: 20.0,
        patience: Duration::from_secs(15),
        duration: Duration::from_millis(16_100),
        faults: Faults {
            kinds: Fault::ALL.to_vec(),
            pause: Duration::from_millis(1600),
            outage: Duration::from_millis(800),
            hang: Duration::from_millis(3200),
        },
        reloads: 2,
        upgrades: 1,
        junk: 30,
        is_soak: false,
        pool: "health: { stall: 1s }".to_owned(),
        directory: directory.path().join("survive"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_die_hang_and_come_back_and_clients_lose_nothing() {
    let Some(program) = loadtest() else { return };
    let directory = Directory::new();
    let outcomes = run(&settings(program, &directory), |line| println!("{line}"))
        .await
        .unwrap();
    let [outcome] = &outcomes[..] else {
        panic!("{outcomes:?}");
    };
    let told = markdown(&outcomes);
    assert!(outcome.survived(), "{told}");
    let counts = outcome.counts;
    assert!(counts.streams > 100 && counts.requests > 100, "{told}");
    assert_eq!((outcome.reloads, outcome.upgrades), (2, 1), "{told}");
    let faults: Vec<_> = outcome.faults.iter().map(|fault| fault.fault).collect();
    assert_eq!(faults, ["kill", "hang", "freeze", "abort", "error"]);
    for fault in &outcome.faults {
        let within = match fault.fault {
            // Twice `stall`, and time for a busy machine.
            "hang" => 3000,
            // One that freezes closes nothing: the next probe or request tells.
            "freeze" => continue,
            _ => 1000,
        };
        assert!(
            fault.out_after_ms.is_some_and(|ms| ms < within),
            "{fault:?}"
        );
    }
}
