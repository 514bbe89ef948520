//! A layer in a `static`: several runtimes one after another and side by side, and threads without any.

use std::pin::Pin;
use std::sync::LazyLock;
use std::sync::mpsc;
use std::time::Duration;

use futures_util::poll;
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_429::{ConcurrencyLimit, ConcurrencyLimitLayer, PacingConfig, RetryOn429, RetryOn429Layer};
use tower_429_testing::{Hints, Limit, Provider};

use crate::support_limit::{Desk, Slow, ms, request, request_with, slow, watched};

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
fn a_runtime_that_is_dropped_while_calls_wait_takes_neither_permits_nor_places_along() {
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
fn a_permit_that_is_dropped_on_a_thread_without_a_runtime_wakes_who_waits() {
    watched(|| {
        let layer = ConcurrencyLimitLayer::new(1);
        let desk = Desk::default();
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
            let desk = Desk::default();
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

/// A runtime whose clock stands still unless the runtime is driven and has nothing else to do.
fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Calls of one client that share a key.
struct Shared {
    desk: Desk,
    client: RetryOn429<Desk>,
}

impl Shared {
    fn new() -> Self {
        let desk = Desk::default();
        Self { client: RetryOn429Layer::new().layer(desk.clone()), desk }
    }

    fn call(&self) -> Call {
        let call = self.client.clone().oneshot(request());
        Box::pin(async move { drop(call.await.unwrap()) })
    }

    /// A call that was throttled with a hint of 300 ms, and waits.
    async fn cooled_down(&self) -> Call {
        let mut call = self.call();
        assert!(poll!(&mut call).is_pending());
        self.desk.take().throttle(ms(300));
        assert!(poll!(&mut call).is_pending());
        call
    }

    /// Waits for a call to reach the server, polled only when it is woken: how long that took by the clock of this runtime.
    async fn arrival(&self, call: Call) -> Duration {
        let start = Instant::now();
        let call = tokio::spawn(call);
        let arrives = async {
            while self.desk.len() == 0 {
                tokio::time::sleep(ms(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), arrives).await.expect("waits for a timer of the other runtime");
        let took = start.elapsed();
        self.desk.take().empty();
        call.await.unwrap();
        took
    }
}

/// The hint, its spread, and the time that the silent call at the head of the queue may take.
const COOLDOWN: Duration = ms(300 + 75 + 20 + 2);

#[test]
fn a_cooldown_ends_in_time_while_another_runtime_that_has_waiters_stands_still() {
    watched(|| {
        let shared = Shared::new();
        let (blocked, driven) = (paused(), paused());
        let first = blocked.block_on(shared.cooled_down());
        let took = driven.block_on(async { shared.arrival(shared.call()).await });
        assert!(took <= COOLDOWN, "{took:?}");
        drop(first);
    });
}

#[test]
fn a_cooldown_ends_in_time_for_a_runtime_whose_waiters_came_before_those_of_one_that_stands_still() {
    watched(|| {
        let shared = Shared::new();
        let (blocked, driven) = (paused(), paused());
        let first = driven.block_on(shared.cooled_down());
        let mut second = shared.call();
        blocked.block_on(async { assert!(poll!(&mut second).is_pending()) });
        let took = driven.block_on(shared.arrival(first));
        assert!(took <= COOLDOWN, "{took:?}");
    });
}

#[test]
fn a_cooldown_ends_in_time_after_the_runtime_of_another_waiter_was_dropped() {
    watched(|| {
        for waiter_stays in [true, false] {
            let shared = Shared::new();
            let (dropped, driven) = (paused(), paused());
            let first = dropped.block_on(shared.cooled_down());
            let mut second = shared.call();
            driven.block_on(async { assert!(poll!(&mut second).is_pending()) });
            let first = waiter_stays.then_some(first);
            drop(dropped);
            let took = driven.block_on(shared.arrival(second));
            assert!(took <= COOLDOWN, "{took:?}");
            drop(first);
        }
    });
}

#[test]
fn a_cooldown_ends_in_time_beside_a_runtime_that_is_never_driven() {
    watched(|| {
        let shared = Shared::new();
        let (never, driven) = (paused(), paused());
        let (first, mut second) = (driven.block_on(shared.cooled_down()), shared.call());
        {
            let _entered = never.enter();
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(second.as_mut().poll(&mut cx).is_pending());
        }
        drop(first);
        let took = driven.block_on(async { shared.arrival(shared.call()).await });
        assert!(took <= COOLDOWN, "{took:?}");
    });
}

#[test]
fn a_waiter_that_moves_to_another_runtime_takes_its_timer_along() {
    watched(|| {
        let shared = Shared::new();
        let (left, driven) = (paused(), paused());
        let call = left.block_on(shared.cooled_down());
        let took = driven.block_on(shared.arrival(call));
        assert!(took <= COOLDOWN, "{took:?}");
        drop(left);
    });
}

#[test]
fn a_worker_that_blocks_does_not_hold_up_the_calls_of_the_other_workers() {
    watched(|| {
        let desk = Desk::default();
        let client = RetryOn429Layer::new().layer(desk.clone());
        let (throttle, throttled) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let blocks = {
            let (client, desk) = (client.clone(), desk.clone());
            std::thread::spawn(move || {
                current_thread().block_on(async {
                    let call = tokio::spawn(client.oneshot(request()));
                    while desk.len() == 0 {
                        tokio::task::yield_now().await;
                    }
                    desk.take().throttle(ms(50));
                    tokio::task::yield_now().await;
                    throttle.send(()).unwrap();
                    let _ = released.recv(); // as a worker that computes for long
                    while desk.len() == 0 {
                        tokio::task::yield_now().await;
                    }
                    desk.take().empty();
                    call.await.unwrap().unwrap();
                });
            })
        };
        throttled.recv().unwrap();
        current_thread().block_on(async {
            let call = tokio::spawn(client.clone().oneshot(request()));
            let answered = async {
                while desk.len() == 0 {
                    tokio::time::sleep(ms(1)).await;
                }
                desk.take().empty();
                call.await.unwrap().unwrap();
            };
            let time = Duration::from_secs(20);
            tokio::time::timeout(time, answered).await.expect("waits for a worker that blocks");
        });
        release.send(()).unwrap();
        blocks.join().unwrap();
    });
}

#[test]
fn workers_with_a_runtime_each_share_one_client() {
    watched(|| {
        let limit = ConcurrencyLimitLayer::new(2);
        let inner = slow(ms(1));
        let retry = RetryOn429Layer::new().pacing(PacingConfig::new().initial_window(3));
        let client = retry.layer(limit.layer(inner.clone()));
        let key = tower_429::QuotaKey::new("the workers'");
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let client = client.clone();
                std::thread::spawn(move || {
                    current_thread().block_on(async {
                        let calls = (0..25).map(|_| client.clone().oneshot(request_with(key)));
                        for answer in futures_util::future::join_all(calls).await {
                            assert_eq!(answer.unwrap().status(), 200);
                        }
                    });
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!((inner.gauge.served().len(), limit.handle().in_use(), limit.handle().queued()), (200, 0, 0));
        let snapshot = retry.quotas().snapshot(key).unwrap();
        assert_eq!((snapshot.in_flight, snapshot.queued), (0, 0));
    });
}
