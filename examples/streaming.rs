//! Streams behind both layers. A stream holds its permit until it ends or is dropped, not only until its head arrives.
//!
//! `cargo run --example streaming`

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};
use tower_429_testing::{Provider, ServiceTime};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let provider = Provider::builder()
        .service_time(ServiceTime::Fixed(Duration::from_millis(200)))
        .streaming(4, Duration::from_millis(20))
        .build();
    let url = serve(provider.clone()).await?;

    let limit = ConcurrencyLimitLayer::new(2);
    let handle = limit.handle();
    let client = ServiceBuilder::new()
        .layer(RetryOn429Layer::new())
        .layer(limit)
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    let streams = (0..5).map(|n| {
        let (client, url, handle) = (client.clone(), url.clone(), handle.clone());
        async move {
            let request = Request::post(url).header("authorization", "Bearer sk-test");
            let request = request.body(Full::from(r#"{"model":"gpt-4o","stream":true}"#))?;
            let mut body = client.oneshot(request).await?.into_body();
            println!("stream {n} starts: {} permits in use, {} calls wait", handle.in_use(), handle.queued());
            let mut events = 0;
            while let Some(frame) = body.frame().await {
                let text = frame?.into_data().unwrap_or_default();
                events += text.windows(5).filter(|bytes| bytes == b"data:").count();
                if n == 0 && events == 2 {
                    println!("stream {n} is dropped after {events} events");
                    return Ok::<_, BoxError>(());
                }
            }
            println!("stream {n} ends after {events} events");
            Ok(())
        }
    });
    try_join_all(streams).await?;
    let seen = provider.seen();
    println!(
        "{} streams; the server, which notices a drop a moment later, saw at most {} at once",
        seen.accepted, seen.most_in_flight
    );
    Ok(())
}

async fn serve(provider: Provider) -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1/chat/completions", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, axum::Router::new().fallback_service(provider)).await });
    Ok(url)
}
