//! What goes through both adapters comes out as it was.

use std::time::Duration;

use axum::http::Response;
use tower::{ServiceBuilder, ServiceExt};
use tower_429::{
    ConcurrencyLimitLayer, LocalRejection, QuotaKey, RejectReason, ResendCount, RetryInfo, RetryOn429Layer,
};
use tower_429_reqwest::{Body, FromReqwest, ToReqwest};

use crate::server::{refusing, serve, throttle};

fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}

fn layer() -> RetryOn429Layer<tower_429::CloneWith<Body>> {
    RetryOn429Layer::new().clone_body(Body::try_clone)
}

#[tokio::test]
async fn a_throttled_call_is_sent_again_with_the_same_bytes_and_headers() {
    let server = refusing(2).await;
    let http = reqwest::Client::new();
    let layers = ServiceBuilder::new().layer(layer()).layer(ConcurrencyLimitLayer::new(8));
    let client = ToReqwest::new(layers.service(FromReqwest::new(http.clone())));
    shared(&client);
    let request = http.post(&server.url).header("x-mine", "1").json(&serde_json::json!({ "model": "m" }));
    let response = client.execute(request.build().unwrap()).await.unwrap();

    let info = response.extensions().get::<RetryInfo>().expect("the layers' extensions reach reqwest's response");
    assert_eq!((info.attempts, info.stopped), (3, None));
    assert_eq!(response.text().await.unwrap(), "done");
    let hits = server.hits();
    assert_eq!(hits.len(), 3);
    for hit in hits {
        assert_eq!(&hit.body[..], br#"{"model":"m"}"#);
        assert_eq!(hit.parts.headers["x-mine"], "1");
        assert_eq!(hit.parts.headers["content-length"], "13");
    }
}

#[tokio::test]
async fn the_responses_url_is_the_one_after_redirects() {
    let server = serve(|_, hit| match hit.parts.uri.path() {
        "/old" => Response::builder().status(307).header("location", "/new?a=1").body("".into()).unwrap(),
        _ => Response::new("here".into()),
    })
    .await;
    let http = reqwest::Client::new();
    let client = ToReqwest::new(ServiceBuilder::new().layer(layer()).service(FromReqwest::new(http.clone())));
    let response = client.execute(http.get(format!("{}/old", server.url)).build().unwrap()).await.unwrap();
    assert_eq!(response.url().as_str(), format!("{}/new?a=1", server.url));
}

#[tokio::test]
async fn a_local_answer_has_the_requests_url() {
    let limit = ConcurrencyLimitLayer::new(1).max_queue(0);
    limit.handle().resize(0);
    let http = reqwest::Client::new();
    let client = ToReqwest::new(ServiceBuilder::new().layer(limit).service(FromReqwest::new(http.clone())));
    let response = client.execute(http.get("http://127.0.0.1:1/x").build().unwrap()).await.unwrap();
    assert_eq!(response.url().as_str(), "http://127.0.0.1:1/x");
    assert_eq!(response.extensions().get::<LocalRejection>().unwrap().reason, RejectReason::QueueFull);
    assert_eq!(response.json::<serde_json::Value>().await.unwrap()["error"]["code"], "local_queue_full");
}

#[tokio::test]
async fn each_attempt_carries_the_requests_timeout() {
    let server = serve(|at, _| if at == 0 { throttle() } else { hang() }).await;
    let http = reqwest::Client::new();
    let client = ToReqwest::new(ServiceBuilder::new().layer(layer()).service(FromReqwest::new(http.clone())));
    let request = http.get(&server.url).timeout(Duration::from_millis(200)).build().unwrap();
    let response = client.execute(request).await.unwrap();
    let error = response.bytes().await.expect_err("the second attempt has the timeout, too");
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(server.hits().len(), 2);
}

fn hang() -> Response<axum::body::Body> {
    Response::new(
        axum::body::Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>()),
    )
}

#[tokio::test]
async fn http_requests_with_reqwests_own_body_fit_too() {
    let server = refusing(0).await;
    let request = http::Request::post(&server.url).body(reqwest::Body::from("x")).unwrap();
    let response: Response<reqwest::Body> = FromReqwest::new(reqwest::Client::new()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    // A `String` is `Clone`: the layer needs no `clone_body` for it.
    let stack = ServiceBuilder::new().layer(RetryOn429Layer::new()).service(FromReqwest::new(reqwest::Client::new()));
    let response = stack.oneshot(http::Request::post(&server.url).body("y".to_owned()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(&server.hits()[1].body[..], b"y");
}

#[tokio::test]
async fn extensions_of_an_http_request_reach_the_layers_and_each_attempt() {
    let server = refusing(1).await;
    let counts = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&counts);
    let stack = ServiceBuilder::new()
        .layer(layer())
        .map_request(move |request: http::Request<Body>| {
            seen.lock().unwrap().push(request.extensions().get::<ResendCount>().map(|count| count.0));
            request
        })
        .service(FromReqwest::new(reqwest::Client::new()));
    let mut request = http::Request::post(&server.url).body(Body::from("x")).unwrap();
    request.extensions_mut().insert(QuotaKey::new("mine"));
    assert_eq!(stack.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(*counts.lock().unwrap(), [None, Some(1)]);
}

#[tokio::test]
async fn a_url_that_is_none_is_the_clients_own_error() {
    let request = http::Request::get("/relative").body(Body::default()).unwrap();
    let error = FromReqwest::new(reqwest::Client::new()).oneshot(request).await.unwrap_err();
    assert!(error.is_builder(), "{error:?}");
}
