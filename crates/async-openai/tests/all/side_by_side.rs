//! async-openai's own stack and ours against the same servers.

use std::time::Duration;

use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::middleware::ReqwestService;
use async_openai::middleware::retry::OpenAIRetryLayer;
use async_openai::{Client, types::chat::CreateChatCompletionResponse};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;
use tower::ServiceBuilder;
use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};
use tower_429_async_openai::HttpService;
use tower_429_testing::{Provider, ServiceTime};

use crate::server::{Server, json, rate_limited, serve, throttle};
use crate::{config, prompt};

const STREAMS: usize = 6;
const LIMIT: usize = 2;

/// The most streams that the server saw at once, of six that a client began together.
async fn peak(with: impl FnOnce(Client<OpenAIConfig>) -> Client<OpenAIConfig>) -> usize {
    let provider = Provider::builder()
        .service_time(ServiceTime::Fixed(Duration::from_millis(300)))
        .streaming(4, Duration::ZERO)
        .build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback_service(provider.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client = with(Client::with_config(config(&url)));
    join_all((0..STREAMS).map(|_| async {
        let mut stream = client.chat().create_stream(prompt()).await.unwrap();
        while let Some(event) = stream.next().await {
            event.unwrap();
        }
    }))
    .await;
    assert_eq!(provider.seen().accepted, STREAMS);
    provider.seen().most_in_flight
}

#[tokio::test]
async fn under_a_limit_of_2_its_documented_stack_streams_6_at_once_and_ours_2() {
    let documented = ServiceBuilder::new()
        .concurrency_limit(LIMIT)
        .timeout(Duration::from_secs(30))
        .layer(OpenAIRetryLayer::default())
        .service(ReqwestService::new(reqwest::Client::new()));
    let layers = ServiceBuilder::new().layer(RetryOn429Layer::new()).layer(ConcurrencyLimitLayer::new(LIMIT));
    assert_eq!(peak(|client| client.with_http_service(documented)).await, STREAMS);
    assert_eq!(peak(|client| client.with_http_service(HttpService::new(layers))).await, LIMIT);
}

/// What a gateway or a CDN says: a 429 that is no JSON, once.
async fn plain_text_once() -> Server {
    serve(|n, _| if n == 0 { throttle("text/plain", "Too Many Requests") } else { json(&completion()) }).await
}

fn completion() -> serde_json::Value {
    json!({ "id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [] })
}

async fn call(client: Client<OpenAIConfig>) -> Result<CreateChatCompletionResponse, OpenAIError> {
    client.chat().create(prompt()).await
}

#[tokio::test]
async fn its_default_gives_up_on_a_429_that_is_no_json_and_ours_retries_it() {
    let server = plain_text_once().await;
    let error = call(Client::with_config(config(&server.url))).await.unwrap_err();
    assert!(matches!(error, OpenAIError::JSONDeserialize(..)), "{error:?}");
    assert_eq!(server.hits().len(), 1);

    let server = plain_text_once().await;
    let service = HttpService::new(RetryOn429Layer::new());
    call(Client::with_config(config(&server.url)).with_http_service(service)).await.unwrap();
    assert_eq!(server.hits().len(), 2);
}

#[tokio::test]
async fn its_own_retries_do_not_multiply_ours() {
    let server = serve(|_, _| rate_limited()).await;
    let service = HttpService::new(RetryOn429Layer::new().max_retries(2));
    call(Client::with_config(config(&server.url)).with_http_service(service)).await.unwrap_err();
    assert_eq!(server.hits().len(), 3);
}
