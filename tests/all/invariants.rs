//! What holds of a whole stack whatever its callers do: order, cancelled calls, fairness, and one wake-up a permit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use proptest::prelude::*;
use tower::ServiceExt;
use tower_429::{PacingConfig, Priority};

use crate::support_retry::*;

fn virtually<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

fn numbered(n: usize, class: Priority) -> Req {
    let mut request = with(class);
    request.headers_mut().insert("x-n", n.into());
    request
}

fn number(seen: &Seen) -> usize {
    seen.parts.headers["x-n"].to_str().unwrap().parse().unwrap()
}

/// Counts how often a future is polled.
struct Counted<F>(Pin<Box<F>>, Arc<AtomicUsize>);

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.as_mut().poll(cx)
    }
}

fn throttle(kind: u8) -> Reply {
    match kind {
        0 => Reply::bare(),
        1 => Reply::bare().header("retry-after-ms", "300"),
        2 => Reply::status(503, ""),
        3 => Reply::status(429, AT_ONCE),
        _ => Reply::ok(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn within_a_class_calls_go_first_come_first_served_and_throttled_ones_before_the_others(
        kinds in prop::collection::vec(0..8_u8, 0..30),
        window in 1..6_u32,
    ) {
        virtually(async {
            let script = kinds.clone();
            // A call that is throttled again while others succeed goes to the end of its class: none is throttled twice here.
            let server = Server::new(move |n, seen| match seen.resend {
                None => throttle(*script.get(n).unwrap_or(&9)).after(ms(20)),
                Some(_) => Reply::ok().after(ms(20)),
            });
            // Thirty 429s in a row are no reason to close the key here.
            let layer = layer().pacing(PacingConfig::new().initial_window(window)).max_retries(100).max_sleep(secs(10_000)).max_wait(secs(10_000));
            let outcomes = send_all(&client(&layer, &server), (0..40).map(|n| numbered(n, Priority::Normal))).await;
            assert!(outcomes.iter().all(|outcome| outcome.status == 200), "{outcomes:?}");
            let seen: Vec<_> = server.seen();
            let mut served = std::collections::HashSet::new();
            for (at, call) in seen.iter().enumerate() {
                // Whoever has a lower number has been sent already, and is out or served, or was throttled no earlier than
                // at the moment when this one went.
                for lower in 0..number(call) {
                    let before = seen[..at].iter().rposition(|seen| number(seen) == lower);
                    let before = before.unwrap_or_else(|| panic!("{} before {lower}", number(call)));
                    let throttled = seen[before].resend.is_none() && kinds.get(before).is_some_and(|kind| *kind < 4);
                    assert!(!throttled || seen[before].at + ms(20) >= call.at, "{} before {lower}, which waits", number(call));
                }
                served.insert(number(call));
            }
            assert_eq!(served.len(), 40);
        });
    }

    #[test]
    fn calls_that_are_cancelled_at_any_moment_leave_nothing_behind_and_stop_nobody(
        cancels in prop::collection::vec(prop::option::weighted(0.4, 0..4_000_u64), 20..60),
        kinds in prop::collection::vec(0..12_u8, 0..30),
        window in 1..20_u32,
    ) {
        virtually(async {
            let script = kinds.clone();
            let server = Server::new(move |n, _| throttle(*script.get(n).unwrap_or(&9)).after(ms(100)));
            let layer = layer().pacing(PacingConfig::new().initial_window(window));
            let client = client(&layer, &server);
            let calls: Vec<_> = cancels.iter().map(|cancel| {
                let client = client.clone();
                let cancel = cancel.map(Duration::from_millis);
                tokio::spawn(async move {
                    let call = async { read(send(&client, request()).await).await };
                    match cancel {
                        Some(after) => tokio::time::timeout(after, call).await.is_ok(),
                        None => { call.await; true }
                    }
                })
            }).collect();
            for (call, cancel) in calls.into_iter().zip(&cancels) {
                let answered = tokio::time::timeout(secs(600), call).await.expect("no stall").unwrap();
                assert!(answered || cancel.is_some());
            }
            let snapshot = layer.quotas().snapshot(key()).unwrap();
            assert_eq!((snapshot.in_flight, snapshot.queued), (0, 0));
            assert_eq!(server.open.load(Ordering::SeqCst), 0);
            // And the next call goes after the cooldown, at the slowest rate that is ever learned.
            let answer = tokio::time::timeout(snapshot.state.cooldown().unwrap_or_default() + secs(30), send(&client, request()));
            assert_eq!(answer.await.expect("in time").status(), 200);
        });
    }

    #[test]
    fn no_class_starves(window in 1..5_u32, interactive in 30..80_usize) {
        virtually(async {
            let server = Server::new(|_, _| Reply::ok().after(ms(100)));
            let layer = layer().pacing(PacingConfig::new().initial_window(window));
            let classes = (0..interactive).map(|_| Priority::Interactive).chain([Priority::Batch; 3]);
            let requests = classes.enumerate().map(|(n, class)| numbered(n, class));
            send_all(&client(&layer, &server), requests).await;
            let order: Vec<_> = server.seen().iter().map(number).collect();
            let batch = order.iter().position(|n| *n >= interactive).unwrap();
            // One of seventeen is of the batch while both wait, beside those who went at the door.
            assert!(batch <= 17 + window as usize, "{batch}: {order:?}");
            let early = order[..17 + window as usize].iter().filter(|n| **n >= interactive).count();
            assert!((1..=2).contains(&early), "{early} of the batch: {order:?}");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn one_wake_up_is_one_permit_and_a_cooldown_wakes_no_herd() {
    // 400 wait; every tenth is throttled with a hint at first, so that there are cooldowns, too.
    let server = Server::new(|n, _| {
        if n % 10 == 9 { Reply::bare().header("retry-after-ms", "200") } else { Reply::ok() }.after(ms(50))
    });
    let polls = Arc::new(AtomicUsize::new(0));
    let layer = layer().pacing(PacingConfig::new().initial_window(4));
    let calls: Vec<_> = (0..400)
        .map(|_| {
            let call = client(&layer, &server).oneshot(request());
            let counted = Counted(Box::pin(call), Arc::clone(&polls));
            tokio::spawn(async move { counted.await.unwrap().into_body().collect().await.map(drop) })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    // For each attempt: into the queue, its turn, its answer.
    let (attempts, polls) = (server.count(), polls.load(Ordering::SeqCst));
    assert!(polls <= 3 * attempts + 20, "{polls} polls for {attempts} attempts");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_paced_wakes_each_call_once() {
    let provider = tower_429_testing::Provider::builder().requests(tower_429_testing::Limit::per_minute(60)).build();
    let polls = Arc::new(AtomicUsize::new(0));
    let layer = layer();
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let call = tower::Layer::layer(&layer, provider.clone()).oneshot(request());
            let counted = Counted(Box::pin(call), Arc::clone(&polls));
            tokio::spawn(async move { counted.await.unwrap().status().as_u16() })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    let (attempts, polls) = (provider.seen().arrived(), polls.load(Ordering::SeqCst));
    assert!(polls <= 3 * attempts + 20, "{polls} polls for {attempts} attempts");
}

#[tokio::test(start_paused = true)]
async fn cancelling_the_head_of_the_queue_arms_the_timer_for_the_next() {
    // The head waits for a large bucket to fill; the next one needs little.
    let layer = layer().pacing(PacingConfig::new().tokens_per_minute(60_000));
    let server = Server::new(|_, _| Reply::ok());
    let client = client(&layer, &server);
    send(&client, with(tower_429::Cost::tokens(60_000.0))).await.into_body().collect().await.unwrap();
    let head = tokio::spawn(client.clone().oneshot(with(tower_429::Cost::tokens(60_000.0))));
    tokio::task::yield_now().await;
    let next = tokio::spawn(client.clone().oneshot(with(tower_429::Cost::tokens(1_000.0))));
    tokio::time::sleep(secs(2)).await;
    assert_eq!(server.count(), 1, "first come, first served");
    head.abort();
    assert!(tokio::time::timeout(ms(10), next).await.expect("its own turn has come").unwrap().is_ok());
    assert_eq!(layer.quotas().snapshot(key()).unwrap().queued, 0);
}
