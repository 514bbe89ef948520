//! What goes wrong reaches the caller as the client's own error, and every permit comes back.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::{Client, Error, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_429::{ConcurrencyLimitLayer, LimitHandle, RetryInfo, RetryOn429Layer, StopReason};
use tower_429_reqwest::{Body, FromReqwest, ToReqwest};

use crate::server::{serve, throttle};

/// Sends a request through both layers; gives its answer, and a handle that counts the permits.
async fn send(http: &Client, request: Request) -> (Result<reqwest::Response, Error>, LimitHandle) {
    let limit = ConcurrencyLimitLayer::new(4);
    let handle = limit.handle();
    let retry = RetryOn429Layer::new().clone_body(Body::try_clone);
    let stack = ServiceBuilder::new().layer(retry).layer(limit).service(FromReqwest::new(http.clone()));
    (ToReqwest::new(stack).execute(request).await, handle)
}

/// The kind of an error, as its caller asks for it.
fn kind(error: &Error) -> (bool, bool, bool, bool, bool) {
    (error.is_body(), error.is_decode(), error.is_timeout(), error.is_redirect(), error.is_connect())
}

#[tokio::test]
async fn a_streaming_body_is_sent_once_and_whole() {
    let server = serve(|_, _| throttle()).await;
    let http = Client::new();
    let chunks = stream::iter(0..100).map(|n: i32| Ok::<_, Infallible>(format!("{n},")));
    let request = http.post(&server.url).body(reqwest::Body::wrap_stream(chunks)).build().unwrap();
    let (response, handle) = send(&http, request).await;
    let response = response.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.extensions().get::<RetryInfo>().unwrap().stopped, Some(StopReason::NotReplayable));
    assert!(response.text().await.unwrap().contains("rate_limit_exceeded"), "the 429 is returned whole");
    let hits = server.hits();
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0].body, (0..100).map(|n| format!("{n},")).collect::<String>());
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test]
async fn a_connection_closed_in_mid_body_is_reqwests_own_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
        }
    });
    let http = Client::new();
    let plain = http.get(&url).send().await.unwrap().bytes().await.unwrap_err();
    let (response, handle) = send(&http, http.get(&url).build().unwrap()).await;
    let response = response.unwrap();
    assert_eq!(handle.in_use(), 1, "the permit is held until the body ends");
    let ours = response.bytes().await.unwrap_err();
    assert_eq!(kind(&ours), kind(&plain), "{ours:?} / {plain:?}");
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test]
async fn a_redirect_loop_is_reqwests_own_error() {
    let server = serve(|_, _| Response::builder().status(302).header("location", "/").body("".into()).unwrap()).await;
    let http = Client::new();
    let plain = http.get(&server.url).send().await.unwrap_err();
    let before = server.hits().len();
    let (answer, handle) = send(&http, http.get(&server.url).build().unwrap()).await;
    let ours = answer.unwrap_err();
    assert!(ours.is_redirect());
    assert_eq!((kind(&ours), ours.to_string()), (kind(&plain), plain.to_string()));
    assert_eq!(server.hits().len(), 2 * before, "a redirect loop is not retried");
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test]
async fn an_upstream_that_hangs_is_ended_by_reqwests_own_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let http = Client::new();
    let request = http.get(&url).timeout(Duration::from_millis(50)).build().unwrap();
    let (answer, handle) = send(&http, request).await;
    let error = answer.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(handle.in_use(), 0);
    drop(listener);
}

#[tokio::test]
async fn a_body_that_hangs_is_ended_by_reqwests_own_timeout() {
    let server =
        serve(|_, _| Response::new(axum::body::Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())))
            .await;
    let http = Client::new();
    let with_timeout = || http.get(&server.url).timeout(Duration::from_millis(200));
    let plain = with_timeout().send().await.unwrap().bytes().await.unwrap_err();
    let (response, handle) = send(&http, with_timeout().build().unwrap()).await;
    let ours = response.unwrap().bytes().await.unwrap_err();
    assert!(ours.is_timeout());
    assert_eq!(kind(&ours), kind(&plain), "{ours:?} / {plain:?}");
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test]
async fn a_refused_connection_is_reqwests_own_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let http = Client::new();
    let (answer, handle) = send(&http, http.get(&url).build().unwrap()).await;
    assert!(answer.unwrap_err().is_connect());
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test]
async fn a_call_that_is_dropped_gives_its_permit_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let limit = ConcurrencyLimitLayer::new(1);
    let handle = limit.handle();
    let http = Client::new();
    let client = ToReqwest::new(ServiceBuilder::new().layer(limit).service(FromReqwest::new(http.clone())));
    let request = http.get(&url).build().unwrap();
    let call = tokio::spawn(async move { client.execute(request).await });
    let (_socket, _) = listener.accept().await.unwrap();
    assert_eq!(handle.in_use(), 1);
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(handle.in_use(), 0);
}
