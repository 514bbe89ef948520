//! tower-http-client's request builder works on any stack.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::json;
use tower::ServiceBuilder;
use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};
use tower_http_client::ServiceExt;

use crate::server::{ANSWER, refusing_twice};

#[tokio::test]
async fn tower_http_clients_builder_is_retried() {
    let server = refusing_twice().await;
    let mut client = ServiceBuilder::new()
        .layer(RetryOn429Layer::new())
        .layer(ConcurrencyLimitLayer::new(4))
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let request = client.post(&server.url).json(&json!({ "model": "m" })).unwrap();
    let response = request.send::<Full<Bytes>>().await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), ANSWER);
    server.assert_sent_three_times();
}
