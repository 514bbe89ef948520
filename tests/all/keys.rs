//! Who shares a limit: the default keys, pools, keys of the user's own, and how many are remembered.

use http::Request;
use http_body_util::{BodyExt, Full};
use tower_429::quota::MAX_KEYS;
use tower_429::{NoRetry, QuotaKey, RetryOn429Layer, pool};

use crate::support_retry::*;

async fn keys_of(layer: RetryOn429Layer, requests: impl IntoIterator<Item = Req>) -> usize {
    let server = Server::saying([]);
    let client = client(&layer, &server);
    for request in requests {
        send(&client, request).await;
    }
    layer.quotas().len()
}

fn at(uri: &str) -> Req {
    Request::post(uri).header("api-key", "secret").body(Full::from("{}")).unwrap()
}

fn of(model: &'static str) -> Req {
    unkeyed(Box::leak(
        format!(r#"{{"messages":[{{"role":"user","content":"\"model\":\"x\""}}],"model":"{model}"}}"#).into_boxed_str(),
    ))
}

#[tokio::test(start_paused = true)]
async fn each_model_has_a_key_of_its_own_unless_a_pool_joins_them() {
    let models = ["gpt-4o", "gpt-4o-mini", "ft:gpt-4o:org::1", "ft:gpt-4o:org::2", "gpt-4o"];
    assert_eq!(keys_of(layer(), models.map(of)).await, 4);
    assert_eq!(keys_of(layer().pool(pool::openai_base), models.map(of)).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_in_the_path_is_its_model() {
    let azure = |deployment| {
        at(&format!("https://r.openai.azure.com/openai/deployments/{deployment}/chat/completions?api-version=1"))
    };
    assert_eq!(keys_of(layer(), ["a", "b", "a"].map(azure)).await, 2);
    let google =
        |model| at(&format!("https://generativelanguage.googleapis.com/v1beta/models/{model}:generateContent"));
    assert_eq!(keys_of(layer(), ["a", "b", "a"].map(google)).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_function_and_an_extension_override_the_default() {
    let by_path = layer().key(|parts| parts.uri.path().ends_with("/own").then(|| QuotaKey::new("own")));
    let requests = ["https://a/own", "https://b/own", "https://c/else"].map(at);
    assert_eq!(keys_of(by_path.clone(), requests).await, 2);
    let mut given = at("https://a/own");
    given.extensions_mut().insert(key());
    assert_eq!(keys_of(by_path, [given, at("https://d/own")]).await, 3, "one more than before");
    assert_eq!(keys_of(layer(), [request(), request()]).await, 1);
}

#[tokio::test(start_paused = true)]
async fn credentials_hosts_and_projects_are_kept_apart() {
    let with_header = |name: &'static str, value: &'static str| {
        let mut request = of("m");
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let requests = [
        of("m"),
        with_header("authorization", "Bearer other"),
        with_header("openai-project", "p"),
        with_header("openai-organization", "o"),
        with_header("x-other", "p"),
        at("https://other/v1/responses"),
    ];
    assert_eq!(keys_of(layer(), requests).await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_copied_leaves_all_models_on_one_key() {
    let server = Server::saying([]);
    let layer = layer().no_replay();
    let client = tower::Layer::layer(&layer, server);
    for model in ["a", "b"] {
        tower::ServiceExt::oneshot(client.clone(), of(model)).await.unwrap();
    }
    assert_eq!(layer.quotas().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_ten_thousand_keys_are_remembered_and_first_to_go_are_those_without_anything_to_remember() {
    let server = Server::new(|_, seen| match seen.parts.headers.get("x-what").map(|what| what.to_str().unwrap()) {
        Some("cooling") => Reply::bare().header("retry-after", "100"),
        Some("closed") => Reply::bare().header("retry-after", "1000"),
        Some("slow") => Reply::ok().after(secs(50)),
        _ => Reply::ok(),
    });
    let layer = layer();
    let client = client(&layer, &server);
    let of = |what: &'static str| {
        let mut request = with(QuotaKey::new(what));
        request.extensions_mut().insert(NoRetry);
        request.headers_mut().insert("x-what", what.parse().unwrap());
        request
    };
    send(&client, of("cooling")).await;
    send(&client, of("closed")).await;
    let held = send(&client, of("held")).await;
    let slow = tokio::spawn({
        let (client, slow) = (client.clone(), of("slow"));
        async move { send(&client, slow).await.status() }
    });
    tokio::task::yield_now().await;
    for n in 0..3 * MAX_KEYS {
        let answer = send(&client, with(QuotaKey::new(n))).await;
        answer.into_body().collect().await.unwrap();
    }
    assert!(layer.quotas().len() <= MAX_KEYS);
    let quotas = layer.quotas();
    let snapshot = |what: &str| quotas.snapshot(QuotaKey::new(what));
    assert!(snapshot("cooling").unwrap().state.cooldown().is_some());
    assert!(snapshot("closed").is_some());
    assert_eq!(snapshot("slow").unwrap().in_flight, 1);
    drop(held);
    assert_eq!(slow.await.unwrap(), 200);
    assert_eq!(snapshot("slow").unwrap().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_closed_key_whose_time_for_a_probe_has_come_is_forgotten_before_keys_that_were_used_later() {
    let server = Server::new(|n, _| match n {
        0 => Reply::status(429, NO_QUOTA),
        _ => Reply::ok(),
    });
    let layer = layer();
    let client = client(&layer, &server);
    let quotas = layer.quotas();
    send(&client, with(QuotaKey::new("closed"))).await;
    for n in 1..MAX_KEYS {
        send(&client, with(QuotaKey::new(n))).await.into_body().collect().await.unwrap();
    }
    send(&client, with(QuotaKey::new("one more"))).await;
    assert!(quotas.snapshot(QuotaKey::new("closed")).is_some() && quotas.snapshot(QuotaKey::new(1_usize)).is_none());
    tokio::time::advance(secs(31)).await;
    send(&client, with(QuotaKey::new("and one"))).await;
    assert!(quotas.snapshot(QuotaKey::new("closed")).is_none() && quotas.snapshot(QuotaKey::new(2_usize)).is_some());
}
