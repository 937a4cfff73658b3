//! Stopping: no new connections, requests in hand come to their end, nobody is kept waiting for idlers.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::support::{
    Client, End, Gateway, H2, ask, chat, chat_body, engine, get, h2_answer, h2_post, until, within,
};

const GRACE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_hand_are_finished_and_their_connections_closed() {
    let engine = engine().await;
    engine.hold();
    let gateway = Gateway::with_tls(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    let mut plain = Client::connect(gateway.address).await;
    plain.send(chat(true).bytes()).await;
    let mut h2 = H2::connect(&gateway).await;
    let body = chat_body(true);
    let (stream, mut sending) = h2
        .open(h2_post("/v1/chat/completions", body.len(), true), false)
        .await;
    sending.send_data(body.into(), true).unwrap();
    engine.wait_for_arrivals(2).await;
    let drained = gateway.server().drain(GRACE);
    let checks = async {
        until("the listener to close", || gateway.shared().is_draining()).await;
        refused(&gateway).await;
        // Who watches it can see how far it is.
        let ready = ask(gateway.admin, &get("/ready")).await;
        assert_eq!(ready.status, 503);
        let counts = ask(gateway.admin, &get("/stub_status")).await;
        assert!(counts.text().contains("Writing: 2 "), "{}", counts.text());
        engine.release();
        let answer = plain.answer().await;
        assert_eq!((answer.status, answer.end), (200, End::Framed));
        assert!(answer.text().ends_with("data: [DONE]\n\n"));
        assert_eq!(plain.ended().await, End::Closed);
        assert!(h2_answer(stream).await.text().ends_with("data: [DONE]\n\n"));
    };
    let (drained, ()) = tokio::join!(drained, checks);
    assert!(drained);
    gateway.finish().await;
}

async fn refused(gateway: &Gateway) {
    let address = gateway.address;
    within("connects to be refused", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_hold_nothing_up() {
    let engine = engine().await;
    let gateway = Gateway::with_tls(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    let mut used = Client::connect(gateway.address).await;
    assert_eq!(used.ask(&chat(false)).await.status, 200);
    let _silent = Client::connect(gateway.address).await;
    let _h2 = H2::connect(&gateway).await;
    let begun = Instant::now();
    assert!(gateway.server().drain(GRACE).await);
    assert!(begun.elapsed() < GRACE / 2, "{:?}", begun.elapsed());
    assert_eq!(used.ended().await, End::Closed);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grace_ends_and_what_is_left_is_told() {
    let engine = engine().await;
    engine.hold();
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(true).bytes()).await;
    engine.wait_for_arrivals(1).await;
    assert!(!gateway.server().drain(Duration::from_millis(100)).await);
    engine.release();
    assert_eq!(client.answer().await.status, 200);
    gateway.finish().await;
}
