//! What panics in one call, its waker, a callback or a clone, costs that call alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, PacingConfig, QuotaEvent, QuotaKey, RejectReason, RetryOn429Layer};

use crate::support_limit::{Boom, Desk, Wakes, request as plain};
use crate::support_retry::*;

/// A waker that panics when it is woken.
struct Faulty;

impl Wake for Faulty {
    fn wake(self: Arc<Self>) {
        panic!("a bug of an executor's");
    }
}

fn faulty() -> Waker {
    Arc::new(Faulty).into()
}

fn counting() -> (Waker, Arc<Wakes>) {
    let wakes = Arc::new(Wakes::default());
    (Arc::clone(&wakes).into(), wakes)
}

/// Polls a call once, with this waker.
fn poll<F: Future>(call: &mut Pin<Box<F>>, waker: &Waker) -> Poll<F::Output> {
    call.as_mut().poll(&mut Context::from_waker(waker))
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_neither_reaches_who_gives_its_permit_back_nor_stops_who_waits_behind() {
    let layer = ConcurrencyLimitLayer::new(1);
    let desk = Desk::default();
    let mut service = layer.layer(desk.clone());
    let [mut running, mut faults, mut next] = [(); 3].map(|()| Box::pin(service.call(plain())));
    let (waker, wakes) = counting();
    assert!(poll(&mut running, Waker::noop()).is_pending());
    assert!(poll(&mut faults, &faulty()).is_pending() && poll(&mut next, &waker).is_pending());
    desk.take().empty();
    assert!(poll(&mut running, Waker::noop()).is_ready(), "it gives its permit back and does not panic");
    tokio::time::sleep(ms(21)).await;
    assert_eq!(wakes.count(), 1, "the next one, 20 ms later");
    assert!(poll(&mut next, &waker).is_pending());
    assert_eq!((desk.len(), layer.handle().in_use()), (1, 1));
    desk.take().empty();
    assert!(poll(&mut next, &waker).is_ready() && poll(&mut faults, &faulty()).is_pending());
    drop(faults);
    assert_eq!((layer.handle().in_use(), layer.handle().queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_does_not_reach_who_resizes_the_limit() {
    let layer = ConcurrencyLimitLayer::new(1);
    let mut service = layer.layer(Desk::default());
    let mut calls = [(); 6].map(|()| Box::pin(service.call(plain())));
    let (waker, wakes) = counting();
    for (n, call) in calls.iter_mut().enumerate() {
        assert!(if n % 2 == 1 { poll(call, &faulty()) } else { poll(call, &waker) }.is_pending());
    }
    layer.handle().resize(6);
    assert_eq!(wakes.count(), 2, "the third and the fifth; the first one runs");
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_when_its_key_closes_leaves_nobody_uninformed() {
    let layer = layer().pacing(PacingConfig::new().initial_window(1));
    let desk = Desk::default();
    let mut service = layer.layer(desk.clone());
    let mut calls = [(); 6].map(|()| Box::pin(service.call(request())));
    let (waker, wakes) = counting();
    for (n, call) in calls.iter_mut().enumerate() {
        assert!(if n % 2 == 1 { poll(call, &faulty()) } else { poll(call, &waker) }.is_pending());
    }
    desk.take().throttle(secs(7_200));
    assert!(poll(&mut calls[0], &waker).is_ready(), "it learns that the key is closed, and gets its own answer");
    assert_eq!(wakes.count(), 1 + 2, "its own answer, and both others");
    for call in &mut calls[1..] {
        let Poll::Ready(Ok(answer)) = poll(call, &waker) else { panic!("answered at once") };
        assert_eq!(throttle(&answer), Some(RejectReason::Cooldown));
    }
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_when_a_timer_fires_does_not_end_the_runtime() {
    let layer = layer().pacing(PacingConfig::new().initial_window(1));
    let desk = Desk::default();
    let mut service = layer.layer(desk.clone());
    let [mut faults, mut next] = [(); 2].map(|()| Box::pin(service.call(request())));
    assert!(poll(&mut faults, Waker::noop()).is_pending());
    desk.take().throttle(secs(1));
    assert!(poll(&mut faults, &faulty()).is_pending());
    let (waker, wakes) = counting();
    assert!(poll(&mut next, &waker).is_pending());
    let start = tokio::time::Instant::now();
    while wakes.count() == 0 {
        assert!(start.elapsed() < secs(60), "its turn never comes");
        tokio::time::sleep(ms(1)).await;
    }
    assert!(start.elapsed() <= ms(1_250 + 20 + 2), "{:?}", start.elapsed());
}

fn to_model(model: &str) -> Req {
    let mut request = unkeyed("");
    *request.body_mut() = format!(r#"{{"model":"{model}"}}"#).into();
    request
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_does_not_keep_an_account_from_closing_and_opening() {
    let seen: Arc<Mutex<Vec<QuotaEvent>>> = Arc::default();
    let told = Arc::clone(&seen);
    let layer = layer().on_event(move |_, event| {
        told.lock().unwrap().push(*event);
        panic!("a bug of the listener's");
    });
    let quota = Arc::new(AtomicBool::new(true));
    let has_quota = Arc::clone(&quota);
    let server = Server::new(move |_, _| match has_quota.load(Ordering::SeqCst) {
        true => Reply::ok(),
        false => Reply::status(429, NO_QUOTA),
    });
    let client = client(&layer, &server);
    let spawned = |model: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { throttle(&send(&client, to_model(model)).await) })
    };
    for model in ["a", "b", "c", "d"] {
        assert_eq!(spawned(model).await.unwrap(), None);
    }
    quota.store(false, Ordering::SeqCst);
    assert!(spawned("a").await.unwrap_err().is_panic(), "its own listener, in its own call");
    assert_eq!(seen.lock().unwrap().len(), 4, "told of each of the four, whatever becomes of the first");
    for model in ["a", "b", "c", "d"] {
        assert_eq!(spawned(model).await.unwrap(), Some(RejectReason::QuotaExhausted), "{model}");
    }
    assert!(spawned("e").await.unwrap_err().is_panic(), "a new key is told that its account is closed");
    assert_eq!(spawned("e").await.unwrap(), Some(RejectReason::QuotaExhausted));
    quota.store(true, Ordering::SeqCst);
    tokio::time::advance(secs(31)).await;
    assert!(spawned("a").await.unwrap_err().is_panic());
    for model in ["a", "b", "c", "d", "e"] {
        assert_eq!(spawned(model).await.unwrap(), None, "{model}");
    }
}

/// A service whose clones and calls panic on demand.
struct Fragile {
    inner: Server,
    breaks: Arc<AtomicUsize>,
}

impl Clone for Fragile {
    fn clone(&self) -> Self {
        let left = self.breaks.load(Ordering::SeqCst);
        if left > 0 && self.breaks.fetch_sub(1, Ordering::SeqCst) == 1 {
            panic!("a bug of the service's");
        }
        Self { inner: self.inner.clone(), breaks: self.breaks.clone() }
    }
}

impl Service<Req> for Fragile {
    type Response = <Server as Service<Req>>::Response;
    type Error = Broken;
    type Future = <Server as Service<Req>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        self.inner.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_clone_panics_costs_its_call_and_neither_a_permit_nor_a_place() {
    // At the first or at the second clone: at the door, and when a call is put into the queue.
    for at in [1, 2] {
        let (retry, limit) = (layer().pacing(PacingConfig::new().initial_window(2)), ConcurrencyLimitLayer::new(1));
        let fragile = Fragile { inner: Server::new(|_, _| Reply::ok().after(secs(1))), breaks: Arc::default() };
        let breaks = Arc::clone(&fragile.breaks);
        let mut service = retry.layer(limit.layer(fragile));
        let call = service.call(request());
        let running = tokio::spawn(async move { call.await.unwrap().status() });
        tokio::task::yield_now().await;
        breaks.store(at, Ordering::SeqCst);
        let broken = catch_unwind(AssertUnwindSafe(|| service.call(request())));
        breaks.store(0, Ordering::SeqCst);
        assert!(broken.is_err());
        drop(broken);
        assert_eq!(
            tokio::time::timeout(secs(60), service.call(request())).await.expect("hangs").unwrap().status(),
            200
        );
        assert_eq!(running.await.unwrap(), 200);
        let snapshot = retry.quotas().snapshot(key()).unwrap();
        assert_eq!((snapshot.in_flight, snapshot.queued), (0, 0));
        assert_eq!((limit.handle().in_use(), limit.handle().queued()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_whose_clone_panics_costs_its_call_and_neither_a_permit_nor_a_place() {
    let copy = |body: &Full<Bytes>| {
        assert!(!format!("{body:?}").contains("fragile"), "a bug of the body's");
        Some(body.clone())
    };
    let layer = layer().pacing(PacingConfig::new().initial_window(1)).clone_body(copy);
    let service = layer.layer(Server::new(|_, _| Reply::ok().after(secs(1))));
    let fragile = || {
        let mut request = request();
        *request.body_mut() = Full::from("fragile");
        request
    };
    // At the door, and after a wait in the queue, with another call behind.
    assert!(tokio::spawn(service.clone().oneshot(fragile())).await.unwrap_err().is_panic());
    let calls = [request(), fragile(), request()].map(|request| tokio::spawn(service.clone().oneshot(request)));
    let [first, broken, last] = calls;
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert!(broken.await.unwrap_err().is_panic());
    assert_eq!(last.await.unwrap().unwrap().status(), 200);
    let snapshot = layer.quotas().snapshot(key()).unwrap();
    assert_eq!((snapshot.in_flight, snapshot.queued), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_function_of_the_users_that_panics_costs_its_call_alone() {
    type Break = fn(RetryOn429Layer) -> RetryOn429Layer;
    let functions: [(&str, Break); 5] = [
        ("key", |layer| layer.key(|parts| panic_if(parts.headers.contains_key("x-bad")))),
        ("pool", |layer| layer.pool(|model| panic_if(model == "bad").unwrap_or(model))),
        ("tokens", |layer| {
            layer
                .pacing(PacingConfig::new().initial_window(1).tokens_per_minute(1_000_000))
                .tokens(|parts: &http::request::Parts, _: &[u8]| panic_if(parts.headers.contains_key("x-bad")))
        }),
        ("classify", |layer| layer.classify(|parts, _| panic_if(parts.headers.contains_key("x-bad")))),
        ("reject_with", |layer| layer.max_queue(0).reject_with(|_| panic!("a bug of the function's"))),
    ];
    for (name, set) in functions {
        let layer = set(layer().pacing(PacingConfig::new().initial_window(1)).max_retries(0));
        let server = Server::new(|_, seen| match seen.parts.headers.contains_key("x-bad") {
            true => Reply::status(429, BARE).header("x-bad", "1").after(secs(1)),
            false => Reply::ok().after(secs(1)),
        });
        let service = layer.layer(server.clone());
        let bad = || {
            let mut request = to_model("bad");
            request.headers_mut().insert("x-bad", "1".parse().unwrap());
            request
        };
        let calls = match name {
            "reject_with" => [to_model("bad"), bad()],
            _ => [bad(), to_model("good")],
        };
        let [first, second] = calls.map(|request| tokio::spawn(service.clone().oneshot(request)));
        let (broken, good) = if name == "reject_with" { (second, first) } else { (first, second) };
        assert!(broken.await.unwrap_err().is_panic(), "{name}");
        assert_eq!(good.await.unwrap().unwrap().status(), 200, "{name}");
        for model in ["good", "bad"] {
            let key = QuotaKey::of(&to_model("").into_parts().0, model);
            let snapshot = layer.quotas().snapshot(key);
            assert!(snapshot.is_none_or(|known| (known.in_flight, known.queued) == (0, 0)), "{name}: {snapshot:?}");
        }
    }
}

fn panic_if<T>(bad: bool) -> Option<T> {
    assert!(!bad, "a bug of the function's");
    None
}

#[tokio::test(start_paused = true)]
async fn a_limits_answer_that_panics_costs_its_call_alone() {
    let layer = ConcurrencyLimitLayer::new(1).max_queue(0).reject_with(|_| panic!("a bug of the function's"));
    let desk = Desk::default();
    let mut service = layer.layer(desk.clone());
    let [mut running, mut broken] = [(); 2].map(|()| Box::pin(service.call(plain())));
    assert!(poll(&mut running, Waker::noop()).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut broken, Waker::noop()))).is_err());
    drop(broken);
    desk.take().fail();
    assert!(matches!(poll(&mut running, Waker::noop()), Poll::Ready(Err(Boom))));
    assert_eq!((layer.handle().in_use(), layer.handle().queued()), (0, 0));
}
