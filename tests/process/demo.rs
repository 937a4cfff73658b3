//! `sluicegate demo`, and what it says to try.

use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::gateway::{Lines, PATIENCE, PROGRAM, ended};
use crate::wire::ask;

#[test]
fn the_demo_answers_once() {
    let output = Command::new(PROGRAM)
        .args(["demo", "--once", "--port", "0"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(
        answer.contains("HTTP/1.1 200 ") && answer.contains("chat.completion"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_of_the_demo_can_be_killed() {
    let mut child = Command::new(PROGRAM)
        .args(["demo", "--port", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = Lines::of(child.stdout.take().unwrap());
    let log = Lines::of(child.stderr.take().unwrap());
    let last = |part: &str| {
        said.wait_for(1, part)
            .rsplit(' ')
            .next()
            .unwrap()
            .to_owned()
    };
    let engine: i32 = last("  kill ").parse().unwrap();
    let public = said.wait_for(1, "The gateway is at http://");
    let public = public.split("http://").nth(1).unwrap();
    let public = public.split(',').next().unwrap().parse().unwrap();
    kill(Pid::from_raw(engine), Signal::SIGTERM).unwrap();
    let body = r#"{"model":"DeepSeek-R1","messages":[],"max_tokens":1}"#;
    let begun = Instant::now();
    while log.count(" is down: ") == 0 {
        let answer = ask(public, "POST", "/v1/chat/completions", body).await;
        assert_eq!(answer.status, 200);
        assert!(begun.elapsed() < PATIENCE, "{:#?}", log.all());
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert!(ended(&mut child, PATIENCE).expect("it ends").success());
}
