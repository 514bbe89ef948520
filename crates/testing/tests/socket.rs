//! The provider behind axum, on a real socket.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower_429_testing::{Limit, Provider, ProviderFuture};

async fn post(address: std::net::SocketAddr, body: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: test\r\nconnection: close\r\n";
    let request = format!("{head}content-length: {length}\r\n\r\n{body}");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn axum_serves_a_provider_as_its_fallback() {
    let provider = Provider::builder().requests(Limit::per_minute(2).fixed_window()).build();
    let router = axum::Router::new().fallback_service(provider.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let json = post(address, r#"{"model":"m"}"#).await;
    assert!(json.starts_with("HTTP/1.1 200 OK\r\n"), "{json}");
    assert!(json.contains("\r\ncontent-length: "), "{json}");
    let stream = post(address, r#"{"model":"m","stream":true}"#).await;
    assert!(stream.contains("\r\ntransfer-encoding: chunked\r\n"), "{stream}");
    assert!(stream.contains("data: [DONE]"), "{stream}");
    let throttled = post(address, r#"{"model":"m"}"#).await;
    assert!(throttled.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{throttled}");
    assert_eq!((provider.seen().accepted, provider.seen().throttled_requests), (2, 1));
    server.abort();
}

#[test]
fn provider_and_future_can_cross_threads() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Provider>();
    sent::<ProviderFuture<String>>();
    sent::<tower_429_testing::ProviderBody>();
}
