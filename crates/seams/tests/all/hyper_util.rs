//! hyper-util's legacy client is a tower service as it is.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{ServiceBuilder, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, RetryInfo, RetryOn429Layer};

use crate::server::{ANSWER, REQUEST, refusing_twice};

#[tokio::test]
async fn hyper_utils_client_is_retried() {
    let server = refusing_twice().await;
    let client = ServiceBuilder::new()
        .layer(RetryOn429Layer::new())
        .layer(ConcurrencyLimitLayer::new(4))
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let response = client.oneshot(Request::post(&server.url).body(Full::from(REQUEST)).unwrap()).await.unwrap();
    assert_eq!(response.extensions().get::<RetryInfo>().unwrap().attempts, 3);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), ANSWER);
    server.assert_sent_three_times();
}
