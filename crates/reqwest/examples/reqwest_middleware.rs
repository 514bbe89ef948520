//! The layers as one middleware of `reqwest-middleware`. A middleware that is added after it runs for each attempt.
//!
//! `cargo run -p tower-429-reqwest --example reqwest_middleware`

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next, Result};
use serde_json::json;
use tower::ServiceBuilder;
use tower_429::{ConcurrencyLimitLayer, Priority, ResendCount, RetryInfo, RetryOn429Layer};
use tower_429_reqwest::{Body, TowerMiddleware};
use tower_429_testing::{Limit, Provider};

struct LogAttempts;

#[async_trait::async_trait]
impl Middleware for LogAttempts {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let resent = extensions.get::<ResendCount>().map_or(0, |count| count.0);
        let answer = next.run(request, extensions).await;
        match &answer {
            Ok(response) => println!("  attempt {}: {}", resent + 1, response.status()),
            Err(error) => println!("  attempt {}: {error}", resent + 1),
        }
        answer
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    // The bucket starts empty, so the first call is throttled.
    let provider = Provider::builder().requests(Limit::per_minute(600).starting_at(0)).build();
    let url = serve(provider.clone()).await?;

    let layers = ServiceBuilder::new()
        .layer(RetryOn429Layer::new().clone_body(Body::try_clone))
        .layer(ConcurrencyLimitLayer::new(8));
    let client =
        ClientBuilder::new(reqwest::Client::new()).with(TowerMiddleware::new(layers)).with(LogAttempts).build();

    for n in 1..=3 {
        let prompt = json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": "hello" }] });
        let call = client.post(&url).bearer_auth("sk-test").with_extension(Priority::Interactive);
        let response = call.header("content-type", "application/json").body(prompt.to_string()).send().await?;
        let attempts = response.extensions().get::<RetryInfo>().map_or(1, |info| info.attempts);
        println!("call {n}: {} after {attempts} attempt(s)", response.status());
        assert!(response.status().is_success());
        response.bytes().await?;
    }
    let seen = provider.seen();
    println!("{} accepted, {} throttled and retried", seen.accepted, seen.throttled());
    Ok(())
}

async fn serve(provider: Provider) -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1/chat/completions", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, axum::Router::new().fallback_service(provider)).await });
    Ok(url)
}
