//! A timeout above `RetryOn429` bounds the call, waits included; below, it bounds one attempt.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use tokio::time::{Instant, sleep};
use tower::timeout::error::Elapsed;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_429::{ConcurrencyLimitLayer, Deadline, RetryInfo, RetryOn, RetryOn429Layer, StopReason};

use crate::server::{Body, get, ok, server, throttle_first};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn above_it_ends_a_call_that_is_waiting() {
    let (server, log) = server(throttle_first(10));
    let stack = ServiceBuilder::new().timeout(SECOND).layer(RetryOn429Layer::new()).service(server);
    let error = stack.oneshot(get("/")).await.unwrap_err();
    assert!(error.is::<Elapsed>());
    assert_eq!(log.len(), 1, "it was waiting for its second attempt");
}

#[tokio::test(start_paused = true)]
async fn below_it_leaves_the_waits_alone() {
    let (server, log) = server(throttle_first(10));
    let stack = ServiceBuilder::new().layer(RetryOn429Layer::new()).timeout(SECOND).service(server);
    let start = Instant::now();
    assert_eq!(stack.oneshot(get("/")).await.unwrap().status(), 200);
    assert!(start.elapsed() >= 10 * SECOND);
    assert_eq!(log.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_instead_hands_the_servers_answer_back_at_once() {
    let (server, _) = server(throttle_first(10));
    let stack = ServiceBuilder::new().layer(RetryOn429Layer::new()).service(server);
    let mut request = get("/");
    request.extensions_mut().insert(Deadline::within(SECOND));
    let start = Instant::now();
    let response = stack.oneshot(request).await.unwrap();
    assert_eq!((response.status().as_u16(), start.elapsed()), (429, Duration::ZERO));
    assert_eq!(response.extensions().get::<RetryInfo>().unwrap().stopped, Some(StopReason::Deadline));
}

#[tokio::test(start_paused = true)]
async fn below_it_ends_an_attempt_that_hangs_and_the_next_one_is_sent_if_asked() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&attempts);
    let hangs_once = service_fn(move |_: Request<Body>| {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            if first {
                pending::<()>().await;
            }
            Ok::<_, Infallible>(ok())
        }
    });
    let retry = RetryOn429Layer::new().retry_on(RetryOn::openai_sdk());
    let stack = ServiceBuilder::new().layer(retry).timeout(SECOND).service(hangs_once);
    assert_eq!(stack.oneshot(get("/")).await.unwrap().status(), 200);
    assert_eq!(attempts.load(Ordering::Relaxed), 2);
}

/// Answers after five seconds.
async fn slow(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    sleep(5 * SECOND).await;
    Ok(ok())
}

#[tokio::test(start_paused = true)]
async fn between_the_layers_it_counts_the_wait_for_a_permit_too() {
    let wrong = ServiceBuilder::new().timeout(6 * SECOND).layer(ConcurrencyLimitLayer::new(1)).service_fn(slow);
    let (first, second) = two_at_once(wrong).await;
    assert!(first.is_ok());
    assert!(second.unwrap_err().is::<Elapsed>(), "5 s for a permit and 5 s of its own are more than 6 s");

    let right = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(1)).timeout(6 * SECOND).service_fn(slow);
    let (first, second) = two_at_once(right).await;
    assert!(first.is_ok() && second.is_ok());
}

/// Two calls at once; each answer is dropped when it is there, so that its permit is free.
async fn two_at_once<S, RB>(stack: S) -> (Result<(), BoxError>, Result<(), BoxError>)
where
    S: Service<Request<Body>, Response = Response<RB>, Error = BoxError> + Clone,
{
    let call = async |path| stack.clone().oneshot(get(path)).await.map(drop);
    tokio::join!(call("/1"), call("/2"))
}
