//! octocrab takes a service and its layers; its body can be copied.

use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::{AuthState, OctoBody, OctocrabBuilder};
use serde_json::{Value, json};
use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};

use crate::server::refusing_twice;

#[tokio::test]
async fn octocrab_is_retried() {
    let server = refusing_twice().await;
    let client = OctocrabBuilder::new_empty()
        .with_service(Client::builder(TokioExecutor::new()).build_http::<OctoBody>())
        .with_layer(&ConcurrencyLimitLayer::new(4))
        .with_layer(&RetryOn429Layer::new().clone_body(OctoBody::try_clone))
        .with_layer(&BaseUriLayer::new(server.url.parse().unwrap()))
        .with_auth(AuthState::None)
        .build()
        .unwrap();
    let answer: Value = client.post("/repos", Some(&json!({ "model": "m" }))).await.unwrap();
    assert_eq!(answer, json!({ "answer": 42 }));
    server.assert_sent_three_times();
}
