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
async fn below_a_call_that_waits_holds_no_permit() {
    let stack = ServiceBuilder::new().layer(RetryOn429Layer::new()).layer(ConcurrencyLimitLayer::new(1));
    assert_eq!(time_of_b(stack.service(server(throttle_a).0)).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn above_a_call_that_waits_keeps_the_others_out() {
    let stack = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(1)).layer(RetryOn429Layer::new());
    assert!(time_of_b(stack.service(server(throttle_a).0)).await >= Duration::from_secs(60));
}

/// How long a call of tenant b takes while two of tenant a want to run. Each call takes a second.
async fn time_of_tenant_b(first: ConcurrencyLimitLayer, second: ConcurrencyLimitLayer) -> Duration {
    let slow = tower::service_fn(|_: Request<Body>| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, std::convert::Infallible>(ok())
    });
    let stack = ServiceBuilder::new().layer(first).layer(second).service(slow);
    let call = |tenant: &'static str| {
        let mut request = get("/");
        request.extensions_mut().insert(QuotaKey::new(tenant));
        let (stack, start) = (stack.clone(), Instant::now());
        async move {
            drop(stack.oneshot(request).await.unwrap());
            start.elapsed()
        }
    };
    tokio::join!(call("a"), call("a"), call("b")).2
}

#[tokio::test(start_paused = true)]
async fn a_limit_in_all_above_one_per_key_holds_a_tenant_for_the_work_of_another() {
    let in_all = || ConcurrencyLimitLayer::new(2);
    let per_key = || ConcurrencyLimitLayer::new(1).per_key();
    // The second call of tenant a waits for its key, and holds a permit of the limit in all.
    assert_eq!(time_of_tenant_b(in_all(), per_key()).await, Duration::from_secs(2));
    assert_eq!(time_of_tenant_b(per_key(), in_all()).await, Duration::from_secs(1));
}
