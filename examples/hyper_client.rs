//! Both layers around hyper's client, with tower's `ServiceBuilder` and tower-http's `TraceLayer`.
//!
//! `cargo run --example hyper_client`
//!
//! The server is on loopback. It accepts 4 calls at once and sends no rate headers.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;
use tower::{ServiceBuilder, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, Priority, RetryInfo, RetryOn429Layer};
use tower_429_testing::{Limit, Provider, ServiceTime, Wording};
use tower_http::trace::TraceLayer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let provider = Provider::builder()
        .requests(Limit::per_minute(600))
        .at_once(4)
        .service_time(ServiceTime::Fixed(Duration::from_millis(200)))
        .wording(Wording::Bare)
        .build();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let server = axum::Router::new().fallback_service(provider.clone());
    tokio::spawn(axum::serve(listener, server).into_future());

    let retry = RetryOn429Layer::new();
    let quotas = retry.quotas();
    let limit = ConcurrencyLimitLayer::new(6); // the server's own cap is lower, and the retry layer learns it
    let handle = limit.handle();
    let client = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http()) // one span per call, with all its attempts
        .layer(retry)
        .layer(limit)
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    let start = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..24 {
        let client = client.clone();
        let body = format!(r#"{{"model":"ft:gpt-4o-mini:acme::7p4lURel","messages":[],"n":{number}}}"#);
        let mut request = Request::post(format!("http://{address}/v1/chat/completions")).body(Full::from(body))?;
        if number % 8 == 7 {
            request.extensions_mut().insert(Priority::Interactive); // gets most of the turns while other calls wait
        }
        calls.spawn(async move {
            let response = client.oneshot(request).await?;
            let (status, info) = (response.status(), response.extensions().get::<RetryInfo>().cloned());
            response.into_body().collect().await?; // the permit is released at the end of the body
            Ok::<_, Box<dyn Error + Send + Sync>>((number, status, info, start.elapsed()))
        });
    }
    while let Some(call) = calls.join_next().await {
        let (number, status, info, time) = call?.map_err(|error| error.to_string())?;
        let attempts = info.map_or(1, |info| info.attempts);
        println!("call {number:2}: {status} after {:4} ms, sent {attempts} times", time.as_millis());
        if !status.is_success() {
            return Err("a call was lost".into());
        }
    }
    let (seen, left) = (provider.seen(), handle.in_use());
    println!(
        "\n{} throttled on the way, {} at once at most, {left} permits in use, {quotas:?}",
        seen.throttled(),
        seen.most_in_flight
    );
    Ok(())
}
