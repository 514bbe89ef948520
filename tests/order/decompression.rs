//! Decompression must be below `RetryOn429`, which else cannot read what a 429 says.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{ServiceBuilder, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, RetryInfo, RetryOn429Layer, StopReason};
use tower_http::decompression::DecompressionLayer;

use crate::server::{Body, QUOTA, get, server};

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A quota that is used up, in gzip.
fn zipped_quota(_: usize, _: &Request<Body>) -> Response<Body> {
    Response::builder().status(429).header("content-encoding", "gzip").body(gzip(QUOTA).into()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn below_a_quota_error_is_read_and_ends_the_call() {
    let (server, log) = server(zipped_quota);
    let stack = ServiceBuilder::new().layer(RetryOn429Layer::new()).layer(DecompressionLayer::new()).service(server);
    let response = stack.oneshot(get("/")).await.unwrap();
    assert_eq!(response.extensions().get::<RetryInfo>().unwrap().stopped, Some(StopReason::Permanent));
    assert_eq!(log.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn above_the_same_error_is_sent_again_for_nothing() {
    let (server, log) = server(zipped_quota);
    let retry = RetryOn429Layer::new().max_retries(2);
    let stack = ServiceBuilder::new().layer(DecompressionLayer::new()).layer(retry).service(server);
    let response = stack.oneshot(get("/")).await.unwrap();
    assert_eq!(log.len(), 3);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), QUOTA, "the caller still gets it whole");
}

#[tokio::test(start_paused = true)]
async fn on_either_side_of_the_limit_the_end_of_the_body_frees_the_permit() {
    let zipped = |_: usize, _: &Request<Body>| {
        Response::builder().header("content-encoding", "gzip").body(gzip("text").into()).unwrap()
    };
    let limit = ConcurrencyLimitLayer::new(1);
    let handle = limit.handle();
    let above = ServiceBuilder::new().layer(DecompressionLayer::new()).layer(limit.clone());
    let mut body = above.service(server(zipped).0).oneshot(get("/")).await.unwrap().into_body();
    while body.frame().await.is_some() {}
    assert_eq!(handle.in_use(), 0);
    let below = ServiceBuilder::new().layer(limit).layer(DecompressionLayer::new());
    let mut body = below.service(server(zipped).0).oneshot(get("/")).await.unwrap().into_body();
    while body.frame().await.is_some() {}
    assert_eq!(handle.in_use(), 0);
}
