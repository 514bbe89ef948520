//! A timeout ends with the head; a body timeout ends a stuck stream, and its permit comes back.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use tower::{ServiceBuilder, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};
use tower_http::timeout::ResponseBodyTimeoutLayer;

use crate::server::{Body, get};

const SECOND: Duration = Duration::from_secs(1);

type Stuck = StreamBody<futures_util::stream::Pending<Result<http_body::Frame<Bytes>, Infallible>>>;

/// Sends a head, and then nothing.
async fn stuck(_: Request<Body>) -> Result<Response<Stuck>, Infallible> {
    Ok(Response::new(StreamBody::new(futures_util::stream::pending())))
}

#[tokio::test(start_paused = true)]
async fn a_timeout_does_not_end_a_body_that_is_stuck() {
    let limit = ConcurrencyLimitLayer::new(1);
    let handle = limit.handle();
    let layers = ServiceBuilder::new().timeout(SECOND).layer(RetryOn429Layer::new()).layer(limit).timeout(SECOND);
    let mut body = layers.service_fn(stuck).oneshot(get("/")).await.unwrap().into_body();
    assert!(tokio::time::timeout(3600 * SECOND, body.frame()).await.is_err(), "an hour later it is still stuck");
    assert_eq!(handle.in_use(), 1);
    drop(body);
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_timeout_below_frees_the_permit_when_it_fires() {
    let limit = ConcurrencyLimitLayer::new(1);
    let handle = limit.handle();
    let retry = RetryOn429Layer::new();
    let layers = ServiceBuilder::new().layer(retry).layer(limit).layer(ResponseBodyTimeoutLayer::new(SECOND));
    let mut body = Box::pin(layers.service_fn(stuck).oneshot(get("/")).await.unwrap().into_body());
    assert_eq!(handle.in_use(), 1);
    assert!(body.frame().await.unwrap().is_err());
    assert_eq!(handle.in_use(), 0, "although the body is still held");
    drop(body);
}

#[tokio::test(start_paused = true)]
async fn a_body_timeout_above_frees_the_permit_when_the_body_is_dropped() {
    let limit = ConcurrencyLimitLayer::new(1);
    let handle = limit.handle();
    let retry = RetryOn429Layer::new();
    let layers = ServiceBuilder::new().layer(ResponseBodyTimeoutLayer::new(SECOND)).layer(retry).layer(limit);
    let mut body = Box::pin(layers.service_fn(stuck).oneshot(get("/")).await.unwrap().into_body());
    assert!(body.frame().await.unwrap().is_err());
    assert_eq!(handle.in_use(), 1);
    drop(body);
    assert_eq!(handle.in_use(), 0);
}
