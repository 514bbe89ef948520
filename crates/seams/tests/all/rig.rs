//! rig sends through the transport of the `rig` example.

#[path = "../../examples/rig/transport.rs"]
mod transport;

use rig_core::http_client::{HttpClientExt, LazyBody, MultipartForm, Request, Response, text};
use tower::ServiceBuilder;
use tower_429::{ConcurrencyLimitLayer, LimitHandle, RetryOn429Layer};
use tower_429_reqwest::{Body, FromReqwest};
use transport::RigTransport;

use crate::server::{ANSWER, REQUEST, refusing_twice};

fn client(retries: u32) -> (impl HttpClientExt, LimitHandle) {
    let limit = ConcurrencyLimitLayer::new(4);
    let handle = limit.handle();
    let stack = ServiceBuilder::new()
        .layer(RetryOn429Layer::new().clone_body(Body::try_clone).max_retries(retries))
        .layer(limit)
        .service(FromReqwest::new(reqwest::Client::new()));
    (RigTransport(stack), handle)
}

fn request(url: &str) -> Request<Vec<u8>> {
    Request::post(url).body(REQUEST.into()).unwrap()
}

#[tokio::test]
async fn a_rig_call_is_retried() {
    let server = refusing_twice().await;
    let (client, _) = client(5);
    let response: Response<LazyBody<Vec<u8>>> = client.send(request(&server.url)).await.unwrap();
    assert_eq!(text(response).await.unwrap(), ANSWER);
    server.assert_sent_three_times();
}

#[tokio::test]
async fn a_rig_stream_is_retried_and_holds_its_permit_while_it_lives() {
    let server = refusing_twice().await;
    let (client, handle) = client(5);
    let response = client.send_streaming(request(&server.url)).await.unwrap();
    assert_eq!(handle.in_use(), 1);
    drop(response);
    assert_eq!(handle.in_use(), 0);
    server.assert_sent_three_times();
}

#[tokio::test]
async fn a_rig_upload_is_retried() {
    let server = refusing_twice().await;
    let (client, _) = client(5);
    let form = Request::post(&server.url).body(MultipartForm::new().text("purpose", "batch")).unwrap();
    let response: Response<LazyBody<Vec<u8>>> = client.send_multipart(form).await.unwrap();
    assert_eq!(text(response).await.unwrap(), ANSWER);
}

#[tokio::test]
async fn rig_gets_the_last_429_as_its_own_error_with_headers() {
    let server = refusing_twice().await;
    let (client, handle) = client(0);
    let answer: Result<Response<LazyBody<Vec<u8>>>, _> = client.send(request(&server.url)).await;
    let Err(error) = answer else { panic!("it was throttled") };
    assert_eq!(error.non_success_status().unwrap().as_u16(), 429);
    assert_eq!(error.non_success_headers().unwrap()["retry-after-ms"], "5");
    assert!(error.non_success_body().unwrap().contains("rate_limit_exceeded"));
    assert_eq!(handle.in_use(), 0);
}
