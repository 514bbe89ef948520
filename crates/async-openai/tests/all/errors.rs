//! Errors arrive as async-openai's own, their headers within reach, and permits come back.

use std::time::Duration;

use async_openai::Client;
use async_openai::error::OpenAIError;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_429::{ConcurrencyLimitLayer, LimitHandle, RetryOn429Layer, StopReason};
use tower_429_async_openai::{ErrorResponse, HttpService};

use crate::server::{serve, throttle};
use crate::{config, prompt, until_free};

const QUOTA: &str = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;

type OpenAi = Client<async_openai::config::OpenAIConfig>;

fn client(url: &str, http: reqwest::Client) -> (OpenAi, LimitHandle) {
    let limit = ConcurrencyLimitLayer::new(4);
    let handle = limit.handle();
    let layers = ServiceBuilder::new().layer(RetryOn429Layer::new()).layer(limit);
    (Client::with_config(config(url)).with_http_service(HttpService::with_client(http, layers)), handle)
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_an_api_error_after_one_attempt() {
    let server = serve(|_, _| throttle("application/json", QUOTA)).await;
    let (client, handle) = client(&server.url, reqwest::Client::new());
    let error = client.chat().create(prompt()).await.unwrap_err();
    let OpenAIError::ApiError(error) = error else { panic!("{error:?}") };
    assert_eq!((error.status_code.as_u16(), error.api_error.code.as_deref()), (429, Some("insufficient_quota")));
    assert_eq!((server.hits().len(), handle.in_use()), (1, 0));
}

#[tokio::test]
async fn a_kept_429_has_status_headers_body_and_what_became_of_the_call() {
    let server = serve(|_, _| throttle("application/json", QUOTA)).await;
    let service = HttpService::new(RetryOn429Layer::new()).keep_error_responses(true);
    let client = Client::with_config(config(&server.url)).with_http_service(service);
    let error = client.chat().create(prompt()).await.unwrap_err();
    let throttled = ErrorResponse::of(&error).expect("the error has the whole throttle");
    assert_eq!((throttled.status.as_u16(), &throttled.headers["retry-after-ms"]), (429, &"5".parse().unwrap()));
    assert_eq!(throttled.body, QUOTA);
    assert_eq!(throttled.info.as_ref().unwrap().stopped, Some(StopReason::Permanent));
    assert_eq!(throttled.api_error().unwrap().api_error.code.as_deref(), Some("insufficient_quota"));
    assert!(error.to_string().contains("You exceeded your current quota"), "{error}");
}

#[tokio::test]
async fn a_connection_that_is_refused_is_reqwests_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (client, handle) = client(&url, reqwest::Client::new());
    let error = client.chat().create(prompt()).await.unwrap_err();
    assert!(matches!(&error, OpenAIError::Reqwest(error) if error.is_connect()), "{error:?}");
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test]
async fn an_error_in_a_layers_box_is_taken_out_of_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let layers = ServiceBuilder::new().timeout(Duration::from_secs(60)).layer(RetryOn429Layer::new());
    let client = Client::with_config(config(&url)).with_http_service(HttpService::new(layers));
    let error = client.chat().create(prompt()).await.unwrap_err();
    assert!(matches!(&error, OpenAIError::Reqwest(error) if error.is_connect()), "{error:?}");
}

#[tokio::test]
async fn an_upstream_that_hangs_is_ended_by_the_clients_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let http = reqwest::Client::builder().timeout(Duration::from_millis(50)).build().unwrap();
    let (client, handle) = client(&url, http);
    let error = client.chat().create(prompt()).await.unwrap_err();
    assert!(matches!(&error, OpenAIError::Reqwest(error) if error.is_timeout()), "{error:?}");
    assert_eq!(handle.in_use(), 0);
    drop(listener);
}

#[tokio::test]
async fn a_stream_whose_connection_closes_ends_with_an_error_and_frees_its_permit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 4096]).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1000\r\n\r\n";
        let _ = socket.write_all(format!("{head}data: {{").as_bytes()).await;
    });
    let (client, handle) = client(&url, reqwest::Client::new());
    let mut stream = client.chat().create_stream(prompt()).await.unwrap();
    let event = stream.next().await.expect("an error, not a quiet end");
    assert!(event.is_err());
    drop(stream);
    until_free(&handle).await;
}
