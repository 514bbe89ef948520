//! A concurrency limit inside an axum service: two streams run, two calls wait, and further calls are rejected at once.
//!
//! `cargo run --example axum_limit`
//!
//! The error type stays `Infallible`, so no `HandleErrorLayer` is needed. A stream holds its permit until its last byte.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, sleep};
use tower_429::{ConcurrencyLimitLayer, LocalRejection};

/// Streams five words, one every 60 ms.
async fn words() -> Body {
    Body::from_stream(futures_util::stream::unfold(0, |number| async move {
        sleep(Duration::from_millis(60)).await;
        (number < 5).then(|| (Ok::<_, Infallible>(Bytes::from(format!("word {number}\n"))), number + 1))
    }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let limit = ConcurrencyLimitLayer::new(2).max_queue(2).reject_with(|throttle: &LocalRejection| {
        let mut response = throttle.response();
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    });
    let handle = limit.handle();
    let app = Router::new().route("/words", get(words)).layer(limit);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, app).into_future());

    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let start = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let request = Request::get(format!("http://{address}/words")).body(Empty::new())?;
        let response = client.request(request);
        calls.spawn(async move {
            let response = response.await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, Box<dyn Error + Send + Sync>>((status, body, start.elapsed()))
        });
    }
    let mut streamed = 0;
    while let Some(call) = calls.join_next().await {
        let (status, body, time) = call?.map_err(|error| error.to_string())?;
        streamed += usize::from(status.is_success());
        println!(
            "{status} after {:3} ms: {}",
            time.as_millis(),
            String::from_utf8_lossy(&body).trim().replace('\n', ", ")
        );
    }
    println!("\n{streamed} streams of 6 calls, {} permits in use", handle.in_use());
    if streamed == 4 { Ok(()) } else { Err("two streams at once and two that waited were expected".into()) }
}
