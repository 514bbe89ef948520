//! The default keys, as users meet them: credentials in queries and signatures, models in paths, resources as pools.

use http::{Method, Request};
use http_body_util::Full;
use tokio::time::Instant;
use tower_429::RetryOn429Layer;

use crate::support_retry::*;

fn post(uri: &str, headers: &[(&str, &str)]) -> Req {
    let mut request = Request::post(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(r#"{"input":"hello"}"#)).unwrap()
}

fn get(uri: &str) -> Req {
    let mut request = post(uri, &[("authorization", "Bearer sk-test")]);
    *request.method_mut() = Method::GET;
    *request.body_mut() = Full::default();
    request
}

/// How many keys these requests have.
async fn keys_of(requests: impl IntoIterator<Item = Req>) -> usize {
    let layer = layer();
    let client = client(&layer, &Server::saying([]));
    for request in requests {
        assert_eq!(send(&client, request).await.status(), 200);
    }
    layer.quotas().len()
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_key_in_a_query_does_not_close_a_healthy_one() {
    let server = Server::new(|_, seen| match seen.parts.uri.query() {
        Some("key=used-up") => Reply::status(429, NO_QUOTA),
        _ => Reply::ok(),
    });
    let client = client(&layer(), &server);
    let gemini = |key| {
        post(
            &format!(
                "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-pro:generateContent?key={key}"
            ),
            &[],
        )
    };
    assert_eq!(send(&client, gemini("used-up")).await.status(), 429);
    for _ in 0..20 {
        assert_eq!(send(&client, gemini("healthy")).await.status(), 200);
    }
    assert!(throttle(&send(&client, gemini("used-up")).await).is_some(), "answered locally");
}

#[tokio::test(start_paused = true)]
async fn signed_requests_share_the_key_of_their_access_key() {
    let uri = "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.nova-lite-v1:0/converse";
    let signed = |access_key: &str, n: usize| {
        let signature = format!(
            "AWS4-HMAC-SHA256 Credential={access_key}/20261128/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature={n:064x}"
        );
        post(uri, &[("authorization", &signature)])
    };
    assert_eq!(keys_of((0..20).map(|n| signed("AKIDONE", n))).await, 1);
    assert_eq!(keys_of((0..20).map(|n| signed(["AKIDONE", "AKIDTWO"][n % 2], n))).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_hint_on_a_vector_store_does_not_hold_a_batch() {
    let server = Server::new(|n, seen| match seen.parts.uri.path() {
        "/v1/vector_stores/vs1/files" if n == 0 => Reply::bare().header("retry-after", "60"),
        _ => Reply::ok(),
    });
    let client = client(&layer(), &server);
    let began = Instant::now();
    let store = tokio::spawn({
        let client = client.clone();
        async move { send(&client, get("https://api.openai.com/v1/vector_stores/vs1/files")).await.status() }
    });
    tokio::time::sleep(ms(1)).await;
    assert_eq!(send(&client, get("https://api.openai.com/v1/batches/b1")).await.status(), 200);
    assert!(began.elapsed() <= ms(2), "{:?}", began.elapsed());
    assert_eq!(store.await.unwrap(), 200);
    assert_hinted(began.elapsed(), secs(60), "the vector store");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_not_like_openais_has_one_key_for_each_host_and_credential() {
    let github = |path: &str| get(&format!("https://api.github.com{path}"));
    let octocrabs = [
        "/user",
        "/repos/o/r",
        "/repos/o/r/issues?state=open&key=1",
        "/repos/o/r/issues/1/comments",
        "/repos/o/r/pulls/1/files",
        "/repos/o/r/deployments/1/statuses",
        "/repos/o/r/actions/runs?per_page=100",
        "/orgs/o/repos",
        "/search/issues?q=models",
        "/gists/1",
        "/graphql",
    ];
    assert_eq!(keys_of(octocrabs.map(github)).await, 1);
}

#[tokio::test(start_paused = true)]
async fn each_model_in_a_path_has_a_key_and_each_resource_one() {
    for (models, expected) in [
        (
            [
                "https://bedrock-runtime.eu-west-1.amazonaws.com/model/eu.a/converse",
                "https://bedrock-runtime.eu-west-1.amazonaws.com/model/eu.b/converse",
            ],
            2,
        ),
        (
            [
                "https://bedrock-runtime.eu-west-1.amazonaws.com/model/eu.a/converse",
                "https://bedrock-runtime.eu-west-1.amazonaws.com/model/eu.a/invoke",
            ],
            1,
        ),
        (
            [
                "https://api.cloudflare.com/client/v4/accounts/1/ai/run/@cf/meta/a",
                "https://api.cloudflare.com/client/v4/accounts/1/ai/run/@cf/meta/b",
            ],
            2,
        ),
        (
            [
                "https://router.huggingface.co/hf-inference/models/o/a",
                "https://router.huggingface.co/hf-inference/models/o/b",
            ],
            2,
        ),
        (
            [
                "https://api.replicate.com/v1/models/o/a/predictions",
                "https://api.replicate.com/v1/models/o/b/predictions",
            ],
            2,
        ),
        (["https://api.openai.com/v1/files/1", "https://api.openai.com/v1/files?limit=5"], 1),
        (["https://api.openai.com/v1/files/1", "https://api.openai.com/v1/batches/1"], 2),
        (["https://api.openai.com/v1/batches/1", "https://api.openai.com/v1/something/new"], 2),
    ] {
        assert_eq!(keys_of(models.map(get)).await, expected, "{models:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_debug_output_shows_a_credential() {
    let layer = RetryOn429Layer::new().key(|_| None);
    let client = client(&layer, &Server::saying([Reply::status(429, NO_QUOTA)]));
    let headers = [("authorization", "Bearer s3cret"), ("api-key", "s3cret"), ("x-goog-api-key", "s3cret")];
    for request in [post("https://a.googleapis.com/v1?key=s3cret", &[]), post("https://api.openai.com/v1", &headers)] {
        let key = tower_429::QuotaKey::of(&request.clone().into_parts().0, "m");
        let answer = send(&client, request).await;
        let shown = format!("{key:?} {layer:?} {:?} {:?} {:?}", layer.quotas(), info(&answer), answer.extensions());
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
