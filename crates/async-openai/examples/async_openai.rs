//! async-openai behind both layers, with streams from a server that limits requests and concurrent calls.
//!
//! `cargo run -p tower-429-async-openai --example async_openai`

use std::time::Duration;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::chat::{ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequestArgs};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use tower::ServiceBuilder;
use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};
use tower_429_async_openai::HttpService;
use tower_429_testing::{Limit, Provider, ServiceTime};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The limit is ten calls per second. Two calls remain at the start. Each call streams for 200 ms.
    let provider = Provider::builder()
        .requests(Limit::per_minute(600).starting_at(2))
        .service_time(ServiceTime::Fixed(Duration::from_millis(200)))
        .streaming(4, Duration::from_millis(20))
        .build();
    let url = serve(provider.clone()).await?;

    let layers = ServiceBuilder::new().layer(RetryOn429Layer::new()).layer(ConcurrencyLimitLayer::new(4));
    let client = Client::with_config(OpenAIConfig::new().with_api_base(url).with_api_key("sk-test"))
        .with_http_service(HttpService::new(layers));

    let streams = (0..8).map(|n| {
        let client = client.clone();
        async move {
            let message = ChatCompletionRequestUserMessageArgs::default().content("count to four").build()?;
            let request =
                CreateChatCompletionRequestArgs::default().model("gpt-4o").messages([message.into()]).build()?;
            let mut stream = client.chat().create_stream(request).await?;
            let mut text = String::new();
            while let Some(event) = stream.next().await {
                text.extend(event?.choices.iter().filter_map(|choice| choice.delta.content.clone()));
            }
            println!("stream {n}: {text}");
            Ok::<_, Box<dyn std::error::Error>>(())
        }
    });
    try_join_all(streams).await?;
    let seen = provider.seen();
    println!(
        "{} streams, at most {} at once, {} throttled on the way",
        seen.accepted,
        seen.most_in_flight,
        seen.throttled()
    );
    Ok(())
}

async fn serve(provider: Provider) -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, axum::Router::new().fallback_service(provider)).await });
    Ok(url)
}
