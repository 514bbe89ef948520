//! A limit for each key.

use std::sync::Arc;
use std::task::Context;

use futures_util::future::join_all;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_ok};
use tower::{Layer, Service, ServiceExt};
use tower_429::limit::MAX_LIMIT_KEYS;
use tower_429::{ConcurrencyLimitLayer, LimitHandle, QuotaKey};

use crate::support_limit::{Desk, Req, Scripted, Step, ms, request, request_with, slow, timed};

fn keyed(key: impl std::hash::Hash) -> Req {
    request_with(QuotaKey::new(key))
}

#[tokio::test(start_paused = true)]
async fn a_limit_per_key_counts_each_key_of_the_extensions_by_itself() {
    let layer = ConcurrencyLimitLayer::new(2).per_key();
    let inner = slow(ms(100));
    let service = layer.layer(inner.clone());
    let calls = (0..12).map(|n| service.clone().oneshot(keyed(n % 3)));
    let (_, elapsed) = timed(join_all(calls)).await;
    assert_eq!((inner.gauge.most(), elapsed), (6, ms(200)));
}

#[tokio::test(start_paused = true)]
async fn a_limit_per_key_without_a_key_goes_by_host_and_credential() {
    let layer = ConcurrencyLimitLayer::new(1).per_key();
    let inner = slow(ms(100));
    let service = layer.layer(inner.clone());
    let call = |token: &str| {
        let mut request = request();
        request.headers_mut().insert("authorization", token.parse().unwrap());
        service.clone().oneshot(request)
    };
    let (_, elapsed) = timed(join_all([call("a"), call("b"), call("a")])).await;
    assert_eq!((inner.gauge.most(), elapsed), (2, ms(200)));
}

#[tokio::test(start_paused = true)]
async fn a_handle_resizes_every_key_that_is_known_and_those_that_come() {
    let layer = ConcurrencyLimitLayer::new(1).per_key();
    let inner = slow(ms(100));
    let service = layer.layer(inner.clone());
    let calls: Vec<_> = (0..8).map(|n| tokio::spawn(service.clone().oneshot(keyed(n % 2)))).collect();
    tokio::time::sleep(ms(1)).await;
    assert_eq!((layer.handle().in_use(), layer.handle().queued()), (2, 6));
    layer.handle().resize(2);
    tokio::time::sleep(ms(1)).await;
    assert_eq!(layer.handle().in_use(), 4);
    let new: Vec<_> = (0..3).map(|_| tokio::spawn(service.clone().oneshot(keyed("new")))).collect();
    tokio::time::sleep(ms(1)).await;
    assert_eq!((layer.handle().in_use(), layer.handle().queued()), (6, 5));
    join_all(calls.into_iter().chain(new)).await;
    assert_eq!((layer.handle().in_use(), layer.handle().queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_resized_while_it_is_being_resized_has_the_last_size_for_all_keys() {
    struct ResizeAgain(LimitHandle);
    impl std::task::Wake for ResizeAgain {
        fn wake(self: Arc<Self>) {
            self.0.resize(5);
        }
    }
    let layer = ConcurrencyLimitLayer::new(1).per_key();
    let mut service = layer.layer(Desk::default());
    let mut calls: Vec<_> =
        ["a", "b"].iter().flat_map(|key| [key, key]).map(|key| Box::pin(service.call(keyed(key)))).collect();
    let waker = Arc::new(ResizeAgain(layer.handle())).into();
    for call in &mut calls {
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    layer.handle().resize(3); // the first key's waiter is woken before the second key has its size
    calls.clear();
    for key in ["a", "b"] {
        // As many go at the door as there are permits.
        let calls: Vec<_> = (0..10).map(|_| service.call(keyed(key))).collect();
        assert_eq!(layer.handle().in_use(), 5, "{key}");
        drop(calls);
    }
}

#[tokio::test(start_paused = true)]
async fn idle_keys_are_forgotten_beyond_the_most_that_are_kept_and_keys_in_use_never() {
    let layer = ConcurrencyLimitLayer::new(1).per_key();
    let desk = Desk::default();
    let mut service = layer.layer(desk.clone());
    // One key runs a call, one holds an unread body, and one has a call in its queue.
    let mut running = spawn(service.call(keyed("running")));
    assert_pending!(running.poll());
    let runs = desk.take();
    let mut unread = spawn(service.call(keyed("unread")));
    assert_pending!(unread.poll());
    desk.take().answer(Scripted::new([Step::Data("a")]));
    let unread = assert_ready_ok!(unread.poll());
    for n in 0..3 * MAX_LIMIT_KEYS {
        let mut call = spawn(service.call(keyed(n)));
        assert_pending!(call.poll());
        desk.take().empty();
        assert_ready_ok!(call.poll());
        tokio::task::yield_now().await; // tokio lets a task receive only so often in one poll
    }
    assert_eq!(layer.handle().in_use(), 2, "both are still counted");
    for key in ["running", "unread"] {
        let mut second = spawn(service.call(keyed(key)));
        assert_pending!(second.poll());
        assert_eq!(desk.len(), 0, "{key}: still limited");
    }
    runs.empty();
    assert_ready_ok!(running.poll());
    drop(unread);
    assert_eq!((layer.handle().in_use(), layer.handle().queued()), (0, 0));
    let debug = format!("{layer:?}").matches("WaitQueue").count();
    assert!(debug <= MAX_LIMIT_KEYS + 4, "{debug} rooms are kept");
}

#[tokio::test(start_paused = true)]
async fn while_all_keys_are_in_use_all_others_share_one_limit() {
    let layer = ConcurrencyLimitLayer::new(2).per_key().max_keys(2);
    let desk = Desk::default();
    let mut service = layer.layer(desk.clone());
    let mut call = |key| {
        let mut call = spawn(service.call(keyed(key)));
        assert_pending!(call.poll());
        call
    };
    let mut calls: Vec<_> = ["a", "b", "c", "d", "e"].map(&mut call).into();
    assert_eq!((desk.len(), layer.handle().in_use(), layer.handle().queued()), (4, 4, 1), "e waits for c or d");
    let mut more = call("a");
    assert_eq!(desk.len(), 5, "those that are remembered have their own");
    layer.handle().resize(3);
    assert!(calls[4].is_woken());
    assert_pending!(calls[4].poll());
    assert_eq!((desk.len(), layer.handle().in_use(), layer.handle().queued()), (6, 6, 0));
    // A key that is not in use any more makes room for another one.
    desk.take().empty();
    desk.take().empty();
    assert_ready_ok!(calls[0].poll());
    assert_ready_ok!(calls[1].poll());
    let _own = ["f", "f", "f"].map(&mut call);
    assert_eq!((desk.len(), layer.handle().queued()), (7, 0), "b is forgotten");
    assert_pending!(more.poll());
}

#[test]
fn eight_threads_with_a_hundred_thousand_keys_leave_no_more_than_the_bound() {
    let layer = ConcurrencyLimitLayer::new(1).per_key().max_keys(1_000);
    let service = layer.layer(slow(ms(0)));
    std::thread::scope(|threads| {
        for thread in 0..8 {
            let service = service.clone();
            threads.spawn(move || {
                for n in 0..12_500 {
                    assert_ready_ok!(spawn(service.clone().oneshot(keyed((thread, n)))).poll());
                }
            });
        }
    });
    assert_eq!((layer.handle().in_use(), layer.handle().queued()), (0, 0));
    let debug = format!("{layer:?}").matches("WaitQueue").count();
    assert!((1_000..=1_002).contains(&debug), "{debug} rooms are kept");
}
