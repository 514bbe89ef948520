//! What the tests share: calls, and what comes back.
#![allow(dead_code)]

use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_429_testing::{Provider, ProviderBody};
use tower_service::Service as _;

pub(crate) const PLAIN: &str = r#"{"model":"m"}"#;

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn request(headers: &[(&str, &str)], body: &str) -> Request<String> {
    let mut request = Request::builder();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.to_owned()).unwrap()
}

pub(crate) async fn send(provider: &Provider, request: Request<String>) -> Response<ProviderBody> {
    let Ok(response) = provider.clone().call(request).await;
    response
}

pub(crate) async fn read(response: Response<ProviderBody>) -> Reply {
    let (head, body) = response.into_parts();
    let Ok(body) = body.collect().await;
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    Reply { status: head.status, headers: head.headers, text }
}

pub(crate) async fn call_with(provider: &Provider, headers: &[(&str, &str)]) -> Reply {
    read(send(provider, request(headers, PLAIN)).await).await
}

pub(crate) async fn call(provider: &Provider) -> Reply {
    call_with(provider, &[]).await
}

/// A call of this price in tokens.
pub(crate) async fn call_for(provider: &Provider, tokens: u32) -> Reply {
    call_with(provider, &[("x-testing-tokens", &tokens.to_string())]).await
}

/// Starts a call with this service time and lets it arrive.
pub(crate) async fn start(provider: &Provider, service_ms: u64) -> JoinHandle<Reply> {
    let provider = provider.clone();
    let task =
        tokio::spawn(async move { call_with(&provider, &[("x-testing-service-ms", &service_ms.to_string())]).await });
    tokio::task::yield_now().await;
    task
}

/// How many calls in a row are accepted before the first 429.
pub(crate) async fn accepted_in_a_row(provider: &Provider) -> usize {
    let mut accepted = 0;
    while call(provider).await.status == StatusCode::OK {
        accepted += 1;
    }
    accepted
}

pub(crate) fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap()
}
