//! rig with both layers. One `HttpClientExt` transport serves every rig provider.
//!
//! `cargo run -p tower-429-seams --example rig`

mod transport;

use rig_core::completion::CompletionRequest;
use rig_core::providers::openai::{OpenAIConfig, Route};
use tower::{BoxError, ServiceBuilder};
use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};
use tower_429_reqwest::{Body, FromReqwest};
use tower_429_testing::{Limit, Provider};
use transport::RigTransport;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let provider = Provider::builder().requests(Limit::per_minute(600).starting_at(0)).build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1", listener.local_addr()?);
    let router = axum::Router::new().fallback_service(provider.clone());
    tokio::spawn(async { axum::serve(listener, router).await });

    let stack = ServiceBuilder::new()
        .layer(RetryOn429Layer::new().clone_body(Body::try_clone))
        .layer(ConcurrencyLimitLayer::new(8))
        .service(FromReqwest::new(reqwest::Client::new()));
    let config = OpenAIConfig::new("sk-test").with_base_url(url).with_route(Route::Chat);
    let model = config.connect(RigTransport(stack)).completion("gpt-4o");
    let response = model.call(CompletionRequest::new("Who are you?")).await?;
    println!("{} ({} throttled on the way)", response.text(), provider.seen().throttled());
    Ok(())
}
