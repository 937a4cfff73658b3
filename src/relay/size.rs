//! How large the task of a request is: each open stream holds one.

use std::sync::Arc;

use pingora_proxy::Session;

use crate::server::Shared;

use super::{RequestCtx, serve};

fn of_future<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn the_task_of_a_request_is_small() {
    let size =
        of_future::<&'static Arc<Shared>, &'static mut Session, &'static mut RequestCtx, _>(serve);
    // What is needed seldom, or by some streams alone, is boxed where it is awaited.
    assert!(size <= 5 * 1024, "{size} bytes");
}
