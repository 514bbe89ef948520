//! A layer in a `static`: several runtimes one after another and side by side, and threads without any.

use std::sync::LazyLock;
use std::sync::mpsc;
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceExt};
use tower_429::{ConcurrencyLimit, ConcurrencyLimitLayer, RetryOn429, RetryOn429Layer};
use tower_429_testing::{Hints, Limit, Provider};

use crate::support_limit::{Slow, ms, request, slow, watched};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

/// Ten calls of 1 ms each through a limit of 1.
async fn ten(service: ConcurrencyLimit<Slow>) {
    let calls = (0..10).map(|_| {
        let service = service.clone();
        tokio::spawn(async move { service.oneshot(request()).await.unwrap().into_body().collect().await.unwrap() })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

#[test]
fn a_static_layer_serves_runtimes_of_both_kinds_one_after_another() {
    static LAYER: LazyLock<ConcurrencyLimitLayer> = LazyLock::new(|| ConcurrencyLimitLayer::new(1));
    watched(|| {
        let inner = slow(ms(1));
        for round in 0..6 {
            let runtime = if round % 2 == 0 { current_thread() } else { multi_thread() };
            runtime.block_on(ten(LAYER.layer(inner.clone())));
        }
        assert_eq!((inner.gauge.most(), inner.gauge.served().len()), (1, 60));
        assert_eq!((LAYER.handle().in_use(), LAYER.handle().queued()), (0, 0));
    });
}

#[test]
fn a_runtime_that_is_dropped_while_calls_wait_takes_neither_slots_nor_places_along() {
    static LAYER: LazyLock<ConcurrencyLimitLayer> = LazyLock::new(|| ConcurrencyLimitLayer::new(1));
    watched(|| {
        for round in 0..4 {
            let runtime = if round % 2 == 0 { current_thread() } else { multi_thread() };
            let service = LAYER.layer(slow(Duration::from_secs(3_600)));
            runtime.block_on(async {
                for _ in 0..10 {
                    tokio::spawn(service.clone().oneshot(request()));
                }
                while LAYER.handle().queued() < 9 {
                    tokio::task::yield_now().await;
                }
            });
            assert_eq!(LAYER.handle().in_use(), 1);
            runtime.shutdown_timeout(Duration::from_secs(5));
            assert_eq!((LAYER.handle().in_use(), LAYER.handle().queued()), (0, 0));
            current_thread().block_on(ten(LAYER.layer(slow(ms(1)))));
        }
    });
}

#[test]
fn a_runtime_that_dies_leaves_the_waiters_of_another_one_alive() {
    watched(|| {
        let layer = ConcurrencyLimitLayer::new(1);
        let (first, second) = (multi_thread(), multi_thread());
        let service = layer.layer(slow(ms(50)));
        // The first runtime makes the timer, then dies with its waiters; the second one's go on.
        let (going, gone) = mpsc::channel();
        let running = service.clone();
        second.spawn(async move {
            let call = running.oneshot(request());
            let call = std::pin::pin!(call);
            call.await.unwrap();
            let _ = going.send(());
        });
        while layer.handle().in_use() == 0 {
            std::thread::yield_now();
        }
        first.spawn(service.clone().oneshot(request()));
        while layer.handle().queued() < 1 {
            std::thread::yield_now();
        }
        let (last, over) = mpsc::channel();
        let waiting = service.clone();
        second.spawn(async move {
            waiting.oneshot(request()).await.unwrap();
            let _ = last.send(());
        });
        while layer.handle().queued() < 2 {
            std::thread::yield_now();
        }
        first.shutdown_timeout(Duration::from_secs(5));
        gone.recv_timeout(Duration::from_secs(20)).expect("the call that runs");
        over.recv_timeout(Duration::from_secs(20)).expect("the call that waits");
        assert_eq!((layer.handle().in_use(), layer.handle().queued()), (0, 0));
    });
}

#[test]
fn a_slot_that_is_dropped_on_a_thread_without_a_runtime_wakes_who_waits() {
    watched(|| {
        let layer = ConcurrencyLimitLayer::new(1);
        let desk = crate::support_limit::Desk::default();
        let service = layer.layer(desk.clone());
        current_thread().block_on(async {
            let first = tokio::spawn(service.clone().oneshot(request()));
            while desk.len() == 0 {
                tokio::task::yield_now().await;
            }
            use crate::support_limit::{Scripted, Step};
            desk.take().answer(Scripted::new([Step::Data("unread")]));
            let held = first.await.unwrap().unwrap();
            let second = tokio::spawn(service.clone().oneshot(request()));
            while layer.handle().queued() == 0 {
                tokio::task::yield_now().await;
            }
            std::thread::spawn(move || drop(held)).join().unwrap();
            while desk.len() == 0 {
                tokio::time::sleep(ms(1)).await;
            }
            desk.take().empty();
            second.await.unwrap().unwrap();
        });
        assert_eq!(layer.handle().in_use(), 0);
    });
}

/// Three calls, of which the second and the third meet a cooldown of about 100 ms.
async fn cooled_down(client: RetryOn429<Provider>) {
    let calls = (0..3).map(|_| client.clone().oneshot(request()));
    for response in futures_util::future::join_all(calls).await {
        assert_eq!(response.unwrap().status(), 200);
    }
}

#[test]
fn a_cooldown_ends_for_a_runtime_while_the_one_that_made_the_timer_stands_still() {
    watched(|| {
        let provider = Provider::builder().requests(Limit::per_minute(600).capacity(1)).hints(Hints::Headers).build();
        let client = RetryOn429Layer::new().layer(provider);
        // Both live, as where each thread of a blocking program has its own; only one of them is driven at a time.
        let (first, second) = (current_thread(), current_thread());
        for runtime in [&first, &second, &first, &second] {
            let calls = cooled_down(client.clone());
            let time = Duration::from_secs(20);
            runtime
                .block_on(async { tokio::time::timeout(time, calls).await.expect("waits for a timer of the other") });
        }
    });
}

#[test]
fn a_waiter_that_loses_its_turn_does_so_by_the_clock_of_a_runtime_that_is_driven() {
    watched(|| {
        let layer = ConcurrencyLimitLayer::new(1);
        let (first, second) = (current_thread(), current_thread());
        first.block_on(ten(layer.layer(slow(ms(1)))));
        second.block_on(async {
            let desk = crate::support_limit::Desk::default();
            let service = layer.layer(desk.clone());
            let running = tokio::spawn(service.clone().oneshot(request()));
            tokio::task::yield_now().await;
            let mut silent = Box::pin(service.clone().oneshot(request()));
            assert!(futures_util::poll!(&mut silent).is_pending());
            let next = tokio::spawn(service.clone().oneshot(request()));
            tokio::task::yield_now().await;
            desk.take().empty();
            running.await.unwrap().unwrap();
            let came = async {
                while desk.len() == 0 {
                    tokio::time::sleep(ms(1)).await;
                }
                desk.take().empty();
                next.await.unwrap().unwrap();
            };
            tokio::time::timeout(Duration::from_secs(10), came).await.expect("the silent one is waited for for ever");
        });
    });
}
