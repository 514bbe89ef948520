//! An axum proxy with both layers inside. It adds rate-limit handling to any client whose base URL can be changed.
//!
//! `cargo run --example axum_proxy`

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};
use tower_429_testing::{Limit, Provider};

/// Maximum size of a request, 8 MiB. The proxy buffers a request so that it can retry it.
const MAX_BODY: usize = 8 << 20;

#[derive(Clone)]
struct Upstream {
    origin: String,
    client: BoxCloneSyncService<http::Request<Full<Bytes>>, Response, BoxError>,
}

async fn proxy(State(upstream): State<Upstream>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("{}{path}", upstream.origin).parse::<Uri>() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    parts.uri = uri;
    for name in [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        parts.headers.remove(name);
    }
    let answer = upstream.client.oneshot(http::Request::from_parts(parts, Full::new(body))).await;
    answer.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, error.to_string()).into_response())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let provider = Provider::builder().requests(Limit::per_minute(600).starting_at(0)).build();
    let origin = serve(axum::Router::new().fallback_service(provider.clone())).await?;

    let client = ServiceBuilder::new()
        .layer(RetryOn429Layer::new().mark_final(true))
        .layer(ConcurrencyLimitLayer::new(64))
        .service(Client::builder(TokioExecutor::new()).build_http());
    // The response body is not buffered. A stream holds its permit until it ends.
    let client = BoxCloneSyncService::new(client.map_response(|response| response.map(Body::new)).map_err(Into::into));
    let upstream = Upstream { origin, client };
    let proxy = serve(axum::Router::new().fallback(proxy).with_state(upstream)).await?;

    // This client has no rate-limit handling.
    let plain = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for n in 1..=3 {
        let request = http::Request::post(format!("{proxy}/v1/chat/completions"));
        let request = request.body(Full::from(r#"{"model":"gpt-4o","stream":true}"#))?;
        let response = plain.request(request).await?;
        let status = response.status();
        let text = response.into_body().collect().await?.to_bytes();
        println!("call {n}: {status}, {} bytes of events", text.len());
        assert!(status.is_success() && text.ends_with(b"[DONE]\n\n"));
    }
    println!("the proxy received {} 429s, the client none", provider.seen().throttled());
    Ok(())
}

async fn serve(router: axum::Router) -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, router).await });
    Ok(url)
}
