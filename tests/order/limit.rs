//! A limit below `RetryOn429` counts what is on the wire; above, it counts what waits, too.

use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, QuotaKey, RetryOn429Layer};

use crate::server::{Body, get, ok, server, throttle};

/// `/a` is throttled once, for a minute.
fn throttle_a(n: usize, request: &Request<Body>) -> Response<Body> {
    if n == 0 && request.uri().path() == "/a" { throttle(60) } else { ok() }
}

/// How long `/b`, of another key, takes while `/a` waits for its second attempt.
async fn time_of_b<S, RB, E>(stack: S) -> Duration
where
    S: Service<Request<Body>, Response = Response<RB>, Error = E> + Clone,
    E: std::fmt::Debug,
{
    let request = |path: &str| {
        let mut request = get(path);
        request.extensions_mut().insert(QuotaKey::new(path));
        request
    };
    let start = Instant::now();
    let a = async { drop(stack.clone().oneshot(request("/a")).await.unwrap()) };
    let b = async {
        drop(stack.clone().oneshot(request("/b")).await.unwrap());
        start.elapsed()
    };
    tokio::join!(a, b).1
}

#[tokio::test(start_paused = true)]
async fn below_a_call_that_waits_holds_no_slot() {
    let stack = ServiceBuilder::new().layer(RetryOn429Layer::new()).layer(ConcurrencyLimitLayer::new(1));
    assert_eq!(time_of_b(stack.service(server(throttle_a).0)).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn above_a_call_that_waits_keeps_the_others_out() {
    let stack = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(1)).layer(RetryOn429Layer::new());
    assert!(time_of_b(stack.service(server(throttle_a).0)).await >= Duration::from_secs(60));
}
