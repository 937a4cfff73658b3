//! A queue, and who asks, over reloads.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_reload_that_gives_room_serves_the_queue() {
    let now = Instant::now();
    let before = one_place();
    let held = Asking::new(&before).lease();
    let mut line: Vec<_> = (0..5).map(|_| Asking::new(&before)).collect();
    // A further endpoint.
    let list = vec![endpoint(&state(now)), endpoint(&states(&before)[0])];
    let with_two = pool(list, 9, Some(&before));
    let first = line.remove(0).lease();
    assert!(Arc::ptr_eq(first.pool(), &with_two));
    assert_eq!(first.index(), 0);
    line[0].waits();
    // A higher cap.
    let mut list: Vec<_> = states(&with_two).iter().map(endpoint).collect();
    list[0].max_in_flight = Some(3);
    list[1].max_in_flight = Some(1);
    let higher = uncapped(list, 9, Some(&with_two));
    let second = [line.remove(0).lease(), line.remove(0).lease()];
    assert_eq!(in_flight(&higher), [3, 1]);
    // Whoever waited in an old epoch, and comes from one, is behind them.
    let mut old = Asking::new(&before);
    drop(first);
    let third = line.remove(0).lease();
    old.waits();
    // No cap at all.
    let open: Vec<_> = states(&with_two).iter().map(endpoint).collect();
    let open = uncapped(open, 0, Some(&higher));
    let (last, old) = (line.remove(0).lease(), old.lease());
    assert!(Arc::ptr_eq(last.pool(), &open));
    drop((held, second, third, last, old));
    assert_eq!((in_flight(&open), watchers(&open)), (vec![0, 0], 0));
    assert_eq!(
        watchers(&before) + watchers(&with_two) + watchers(&higher),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_is_known_by_its_endpoint_in_another_epoch() {
    let now = Instant::now();
    let before = pool(endpoints(3, now), 9, None);
    let held: Vec<_> = (0..3).map(|_| Asking::new(&before).lease()).collect();
    let [a, b, c] = &states(&before)[..] else {
        unreachable!()
    };
    let mut moved = Asking::tried(&before, &[0]);
    let mut bound = Asking::only(&before, 2);
    let mut gone = Asking::only(&before, 1);
    let new = state(now);
    let list = [c, &new, a].map(endpoint).into();
    let after = pool(list, 9, Some(&before));
    // The first one in line takes the new endpoint, knows the one it has tried, and not the one that is gone.
    let placed = moved.placed();
    assert_eq!(
        (placed.reply.unwrap().index(), placed.tried),
        (1, {
            let mut tried = Tried::new();
            tried.insert(2);
            tried
        })
    );
    assert_eq!(gone.refused(), NoPlace::AllTried);
    bound.waits();
    drop(held);
    assert_eq!(bound.lease().index(), 0);
    assert_eq!(b.in_flight(), 0);
    assert_eq!(in_flight(&after), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_leaves_the_configuration_serves_its_queue_to_the_end() {
    let pool = one_place();
    let held = Asking::new(&pool).lease();
    let mut waiting = Asking::new(&pool);
    let queue = Arc::clone(&pool.queue);
    drop(pool);
    drop(held);
    drop(waiting.lease());
    assert_eq!(queue.depth(), 0);
    drop(waiting);
    assert_eq!(Arc::strong_count(&queue), 1, "nothing of the pool is left");
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_switched_off_serves_those_who_wait() {
    let before = one_place();
    let held = Asking::new(&before).lease();
    let mut waiting = Asking::new(&before);
    let after = pool(vec![endpoint(&states(&before)[0])], 0, Some(&before));
    waiting.waits();
    assert!(matches!(
        Asking::new(&after).refused(),
        NoPlace::Busy { .. }
    ));
    drop(held);
    drop(waiting.lease());
    drop(Asking::new(&after).lease());
}

/// The same queue, and none of the endpoints.
fn replaced(before: &Arc<Pool>) -> Arc<Pool> {
    let now = Instant::now();
    let after = pool(vec![endpoint(&state(now))], 0, Some(before));
    for state in states(before) {
        state.removed(now);
    }
    after
}

#[tokio::test(start_paused = true)]
async fn whose_endpoints_have_all_left_is_served_by_the_newest() {
    for tried in [&[][..], &[0], &[0, 1]] {
        let before = pool(endpoints(2, Instant::now()), 9, None);
        let after = replaced(&before);
        let placed = Asking::tried(&before, tried).placed();
        assert!(Arc::ptr_eq(placed.reply.unwrap().pool(), &after));
        assert!(placed.tried.is_empty());
        let only = Asking::only(&before, 1).refused();
        assert_eq!(only, NoPlace::AllTried);
    }
}

#[tokio::test(start_paused = true)]
async fn what_it_has_tried_is_not_tried_again_in_the_newest() {
    let now = Instant::now();
    let before = pool(endpoints(2, now), 9, None);
    let list = [state(now), Arc::clone(&states(&before)[0])];
    let after = pool(list.each_ref().map(endpoint).into(), 9, Some(&before));
    states(&before)[1].removed(now);
    let placed = Asking::tried(&before, &[0]).placed();
    assert_eq!(placed.reply.unwrap().index(), 0);
    assert!(placed.tried.contains(1) && !placed.tried.contains(0));
    assert_eq!(in_flight(&after), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_is_served_by_the_newest_too() {
    let before = one_place();
    let held = Asking::new(&before).lease();
    let at_once = |pool: &mut Arc<Pool>| {
        let (facts, mut rng) = (RequestFacts::default(), fastrand::Rng::with_seed(5));
        lease_at_once(pool, &mut Tried::new(), None, &facts, &mut rng)
    };
    let mut of = Arc::clone(&before);
    assert!(matches!(at_once(&mut of), Err(NoPlace::Busy { .. })));
    let after = replaced(&before);
    let lease = at_once(&mut of).unwrap();
    assert!(Arc::ptr_eq(lease.pool(), &after) && Arc::ptr_eq(&of, &after));
    assert!(matches!(at_once(&mut of), Err(NoPlace::Busy { .. })));
    drop(held);
}
