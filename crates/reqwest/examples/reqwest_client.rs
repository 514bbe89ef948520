//! A `reqwest::Client` behind both layers sends a burst of calls to a server with a low limit. Every call succeeds.
//!
//! `cargo run -p tower-429-reqwest --example reqwest_client`

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceBuilder;
use tower_429::{ConcurrencyLimitLayer, RetryInfo, RetryOn429Layer};
use tower_429_reqwest::{Body, FromReqwest, ToReqwest};
use tower_429_testing::{Limit, Provider, ServiceTime};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The limit is ten calls per second. Three calls remain at the start.
    let provider = Provider::builder()
        .requests(Limit::per_minute(600).starting_at(3))
        .service_time(ServiceTime::Fixed(Duration::from_millis(50)))
        .build();
    let url = serve(provider.clone()).await?;

    let http = reqwest::Client::new();
    let client = ToReqwest::new(
        ServiceBuilder::new()
            .layer(RetryOn429Layer::new().clone_body(Body::try_clone))
            .layer(ConcurrencyLimitLayer::new(8))
            .service(FromReqwest::new(http.clone())),
    );

    let start = Instant::now();
    let calls = (0..12).map(|n| {
        let (http, client, url) = (http.clone(), client.clone(), url.clone());
        tokio::spawn(async move {
            let prompt = json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": format!("call {n}") }] });
            let request = http.post(url).bearer_auth("sk-test").json(&prompt).build()?;
            let response = client.execute(request).await?;
            let attempts = response.extensions().get::<RetryInfo>().map_or(1, |info| info.attempts);
            let status = response.status();
            let answer: Value = response.json().await?;
            println!("call {n:2}: {status} after {attempts} attempt(s): {}", answer["object"]);
            Ok::<_, reqwest::Error>(status)
        })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await??.is_success());
    }
    let seen = provider.seen();
    println!("{} accepted, {} throttled and retried, in {:.1?}", seen.accepted, seen.throttled(), start.elapsed());
    Ok(())
}

async fn serve(provider: Provider) -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1/chat/completions", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, axum::Router::new().fallback_service(provider)).await });
    Ok(url)
}
