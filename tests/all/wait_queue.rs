//! The order in which calls go, and waiters that are woken and do not come.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use http::Response;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_ok};
use tower::{Layer, Service, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, Priority};

use crate::support_limit::{Desk, Slow, Wakes, ms, named, request, request_with, slow, timed};

const CLASSES: [Priority; 3] = [Priority::Batch, Priority::Normal, Priority::Interactive];

#[tokio::test(start_paused = true)]
async fn within_a_class_the_first_to_come_is_the_first_to_go() {
    let layer = ConcurrencyLimitLayer::new(3);
    let inner = slow(ms(10));
    let mut service = layer.layer(inner.clone());
    // A call draws its number when it is made, whenever it is polled first.
    let mut calls: Vec<_> = (0..100).map(|n| service.call(named(request(), n))).collect();
    calls[3..].reverse();
    join_all(calls).await;
    let numbers: Vec<usize> = inner.gauge.served().iter().map(|name| name.parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}

/// Calls of the classes through a limit of 1, in the order in which they went, the one that held the permit left out.
async fn admissions(mut calls: Vec<Priority>) -> Vec<Priority> {
    let layer = ConcurrencyLimitLayer::new(1);
    let inner = slow(ms(10));
    let mut service = layer.layer(inner.clone());
    calls.insert(0, Priority::Normal);
    let index = |class: Priority| CLASSES.iter().position(|one| *one == class).unwrap();
    let calls = calls.into_iter().map(|class| service.call(named(request_with(class), index(class))));
    join_all(calls.collect::<Vec<_>>()).await;
    inner.gauge.served().iter().skip(1).map(|name| CLASSES[name.parse::<usize>().unwrap()]).collect()
}

#[tokio::test(start_paused = true)]
async fn while_all_classes_wait_of_any_21_calls_16_are_interactive_4_normal_and_1_batch() {
    let waiting: Vec<_> = CLASSES.into_iter().flat_map(|class| vec![class; 160]).collect();
    let order = admissions(waiting).await;
    for (round, calls) in order.chunks(21).take(10).enumerate() {
        let of = |class| calls.iter().filter(|one| **one == class).count();
        assert_eq!(CLASSES.map(of), [1, 4, 16], "round {round}");
    }
    assert_eq!(order.len(), 480);
}

#[tokio::test(start_paused = true)]
async fn no_class_starves_and_none_saves_up_while_it_is_away() {
    // 300 interactive calls go alone; then a batch and a normal call come, which must not wait for the other 300.
    let layer = ConcurrencyLimitLayer::new(1);
    let inner = slow(ms(10));
    let service = layer.layer(inner.clone());
    let call = |class, name| tokio::spawn(service.clone().oneshot(named(request_with(class), name)));
    let mut calls: Vec<_> = (0..600).map(|_| call(Priority::Interactive, "i")).collect();
    tokio::time::sleep(ms(3_005)).await;
    assert_eq!(inner.gauge.served().len(), 301);
    calls.extend((0..50).map(|_| call(Priority::Batch, "b")));
    calls.extend((0..50).map(|_| call(Priority::Normal, "n")));
    join_all(calls).await;
    let order = inner.gauge.served().split_off(301);
    for (round, calls) in order.chunks(21).take(10).enumerate() {
        let of = |name| calls.iter().filter(|one| *one == name).count();
        let [batch, normal] = ["b", "n"].map(of);
        // A class that comes does not take the turns that it missed, nor wait for those that others had.
        assert!((1..=2).contains(&batch) && (3..=5).contains(&normal), "round {round}: {batch} {normal}");
    }
}

/// A call that is polled until it waits, and then no more until the test says so.
macro_rules! silent {
    ($service:expr) => {{
        let mut call = Box::pin($service.clone().oneshot(request()));
        assert!(futures_util::poll!(&mut call).is_pending());
        call
    }};
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_does_not_come_loses_its_turn_after_20_ms_but_not_its_place() {
    let layer = ConcurrencyLimitLayer::new(1);
    let inner = slow(ms(100));
    let service = layer.layer(inner.clone());
    let running = tokio::spawn(service.clone().oneshot(named(request(), "running")));
    tokio::task::yield_now().await;
    let silent = silent!(service);
    let next = tokio::spawn(service.clone().oneshot(named(request(), "next")));
    let last = tokio::spawn(service.clone().oneshot(named(request(), "last")));
    let start = Instant::now();
    running.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), ms(100));
    assert_eq!((layer.handle().in_use(), layer.handle().queued()), (0, 3));
    tokio::time::sleep(ms(19)).await;
    assert_eq!(layer.handle().in_use(), 0);
    tokio::time::sleep(ms(2)).await;
    assert_eq!(layer.handle().in_use(), 1, "the next one's turn");
    next.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), ms(220));
    // It comes again: its number is the lowest, but `last` has been called for this permit already.
    silent.await.unwrap();
    last.await.unwrap().unwrap();
    assert_eq!(inner.gauge.served(), ["running", "next", "last", ""]);
    assert_eq!((layer.handle().in_use(), layer.handle().queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_silent_waiter_takes_a_free_permit_whenever_it_is_polled_again() {
    let layer = ConcurrencyLimitLayer::new(1);
    let inner = slow(ms(100));
    let service = layer.layer(inner.clone());
    let running = tokio::spawn(service.clone().oneshot(request()));
    tokio::task::yield_now().await;
    let silent = silent!(service);
    running.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((layer.handle().in_use(), layer.handle().queued()), (0, 1));
    // Newcomers pass it by meanwhile.
    assert_eq!(timed(service.clone().oneshot(request())).await.1, ms(100));
    assert_eq!(timed(silent).await.1, ms(100));
}

#[tokio::test(start_paused = true)]
async fn a_silent_waiter_that_comes_to_a_taken_permit_has_its_old_place_again() {
    let layer = ConcurrencyLimitLayer::new(1);
    let desk = Desk::default();
    let mut service = layer.layer(desk.clone());
    let mut running = spawn(service.call(request()));
    assert_pending!(running.poll());
    let mut calls: Vec<_> = (0..3).map(|n| spawn(service.call(named(request(), n)))).collect();
    calls.iter_mut().for_each(|call| assert_pending!(call.poll()));
    desk.take().empty();
    assert_ready_ok!(running.poll());
    tokio::time::sleep(ms(25)).await; // the first is silent
    assert!(calls[1].is_woken() && calls[2].is_woken(), "two are called after a silent round");
    assert_pending!(calls[1].poll());
    assert_pending!(calls[2].poll()); // nothing left
    assert_pending!(calls[0].poll()); // too late, and before the third again
    let one = desk.take();
    assert_eq!(one.request.headers()["x-name"], "1");
    one.empty();
    assert_ready_ok!(calls[1].poll());
    assert!(calls[0].is_woken() && !calls[2].is_woken());
    assert_pending!(calls[0].poll());
    assert_eq!(desk.take().request.headers()["x-name"], "0");
}

#[tokio::test(start_paused = true)]
async fn the_number_called_doubles_with_each_silent_round_up_to_64() {
    let layer = ConcurrencyLimitLayer::new(1);
    let desk = Desk::default();
    let mut service = layer.layer(desk.clone());
    let mut running = spawn(service.call(request()));
    assert_pending!(running.poll());
    let mut calls: Vec<_> = (0..400).map(|_| Box::pin(service.call(request()))).collect();
    let wakes: Vec<_> = calls.iter().map(|_| Arc::new(Wakes::default())).collect();
    for (call, wakes) in calls.iter_mut().zip(&wakes) {
        let waker = wakes.clone().into();
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    desk.take().empty();
    assert_ready_ok!(running.poll());
    let mut woken = Vec::new();
    for _ in 0..11 {
        woken.push(wakes.iter().filter(|wakes| wakes.count() > 0).count());
        tokio::time::sleep(ms(20)).await;
    }
    assert_eq!(woken, [1, 3, 7, 15, 31, 63, 127, 191, 255, 319, 383]);
    assert!(wakes.iter().all(|wakes| wakes.count() <= 1), "nobody is woken twice");
}

const LONG: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn a_waiter_that_moves_between_tasks_is_woken_where_it_was_polled_last() {
    let layer = ConcurrencyLimitLayer::new(1);
    let inner = slow(ms(50));
    let service = layer.layer(inner.clone());
    let running = tokio::spawn(service.clone().oneshot(request()));
    tokio::task::yield_now().await;
    // Polled here by hand, then in a set, then in a task: each time under another waker.
    let mut moved = Box::pin(service.clone().oneshot(request()));
    let stale = Arc::new(Wakes::default());
    let waker = stale.clone().into();
    assert!(moved.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut set: FuturesUnordered<_> = [moved].into_iter().collect();
    poll_fn(|cx| {
        assert!(set.poll_next_unpin(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    let task = tokio::spawn(async move { set.next().await.unwrap().unwrap() });
    running.await.unwrap().unwrap();
    timeout(LONG, task).await.expect("woken in the wrong place").unwrap();
    assert_eq!(stale.count(), 0);
}

/// Spends what tokio lets a task do in one poll.
async fn spend_the_budget() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    (0..1_000).for_each(|_| sender.send(()).unwrap());
    poll_fn(|cx| {
        while receiver.poll_recv(cx).is_ready() {}
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_is_made_with_tokios_budget_spent_rings_all_the_same() {
    let layer = ConcurrencyLimitLayer::new(1).queue_timeout(ms(500));
    let service = layer.layer(slow(ms(100)));
    let running = tokio::spawn(service.clone().oneshot(request()));
    tokio::task::yield_now().await;
    // Both are polled first in one poll of one task that may not do anything more with tokio.
    let other = service.clone();
    let (silent, next) = tokio::spawn(async move {
        spend_the_budget().await;
        let mut silent = Box::pin(other.clone().oneshot(request()));
        let mut next = Box::pin(other.oneshot(request()));
        poll_fn(|cx| {
            assert!(silent.as_mut().poll(cx).is_pending() && next.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        (silent, next)
    })
    .await
    .unwrap();
    let (done, elapsed) = timed(timeout(LONG, next)).await;
    assert_eq!(done.expect("hangs").unwrap().status(), 200);
    assert_eq!(elapsed, ms(220), "the rest of the call that runs, 20 ms for the silent one, and its own time");
    running.await.unwrap().unwrap();
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_waits_needs_no_runtime() {
    let layer = ConcurrencyLimitLayer::new(1);
    let service = layer.layer(slow(ms(0)));
    std::thread::spawn(move || {
        let mut call = spawn(service.oneshot(request()));
        let response: Response<_> = assert_ready_ok!(call.poll());
        assert_ready_ok!(spawn(response.into_body().collect()).poll());
    })
    .join()
    .unwrap();
    assert_eq!(layer.handle().in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_would_wait_without_a_runtime_panics_and_leaves_the_room_in_order() {
    let layer = ConcurrencyLimitLayer::new(1);
    let desk = Desk::default();
    let mut service = layer.layer(desk.clone());
    let mut running = spawn(service.call(request()));
    assert_pending!(running.poll());
    let mut call = Box::pin(service.call(request()));
    let panicked = std::thread::spawn(move || {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = call.as_mut().poll(&mut cx);
    });
    assert!(panicked.join().is_err());
    assert_eq!((layer.handle().in_use(), layer.handle().queued()), (1, 0));
    let mut next = spawn(service.call(request()));
    assert_pending!(next.poll());
    desk.take().empty();
    assert_ready_ok!(running.poll());
    assert!(next.is_woken());
    assert_pending!(next.poll());
    assert_eq!(desk.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_on_several_threads_all_get_their_turn() {
    let layer = ConcurrencyLimitLayer::new(3);
    let inner = slow(Duration::from_micros(200));
    let service: tower_429::ConcurrencyLimit<Slow> = layer.layer(inner.clone());
    let calls: Vec<_> = (0..600u64)
        .map(|n| {
            let service = service.clone();
            let handle = layer.handle();
            tokio::spawn(async move {
                handle.resize(2 + (n % 3) as usize);
                if n % 7 == 0 {
                    // Given up while it waits or runs.
                    let _ = timeout(Duration::from_micros(n * 10), service.oneshot(request())).await;
                } else {
                    service.oneshot(request()).await.unwrap();
                }
            })
        })
        .collect();
    timeout(Duration::from_secs(30), join_all(calls)).await.expect("hangs");
    assert!(inner.gauge.most() <= 5, "{}", inner.gauge.most());
    assert_eq!((layer.handle().in_use(), layer.handle().queued()), (0, 0));
}
