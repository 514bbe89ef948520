//! kube takes any service; its body can be copied.

use http::Request;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use kube::client::Body;
use serde_json::{Value, json};
use tower::ServiceBuilder;
use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};

use crate::server::{REQUEST, refusing_twice};

#[tokio::test]
async fn kube_is_retried() {
    let server = refusing_twice().await;
    let stack = ServiceBuilder::new()
        .layer(RetryOn429Layer::new().clone_body(Body::try_clone))
        .layer(ConcurrencyLimitLayer::new(4))
        .service(Client::builder(TokioExecutor::new()).build_http::<Body>());
    let client = kube::Client::new(stack, "default");
    let request = Request::post(format!("{}/api", server.url)).body(REQUEST.as_bytes().to_vec()).unwrap();
    assert_eq!(client.request::<Value>(request).await.unwrap(), json!({ "answer": 42 }));
    server.assert_sent_three_times();
}
