//! A server that answers by a function of the attempt's number, and remembers what it was sent.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response, StatusCode, request};
use tokio::net::TcpListener;

/// What the server was sent.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub(crate) parts: request::Parts,
    pub(crate) body: Bytes,
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    hits: Arc<Mutex<Vec<Hit>>>,
}

impl Server {
    pub(crate) fn hits(&self) -> Vec<Hit> {
        self.hits.lock().unwrap().clone()
    }
}

/// Answers the n-th request, from 0, with what `answer` makes of it.
pub(crate) async fn serve<A>(answer: A) -> Server
where
    A: Fn(usize, &Hit) -> Response<Body> + Clone + Send + Sync + 'static,
{
    let hits = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&hits);
    let handler = move |request: Request<Body>| async move {
        let (parts, body) = request.into_parts();
        let hit = Hit { parts, body: to_bytes(body, usize::MAX).await.unwrap_or_default() };
        let n = {
            let mut seen = seen.lock().unwrap();
            seen.push(hit.clone());
            seen.len() - 1
        };
        answer(n, &hit)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(handler)).await });
    Server { url, hits }
}

pub(crate) fn json(body: &serde_json::Value) -> Response<Body> {
    Response::builder().header("content-type", "application/json").body(body.to_string().into()).unwrap()
}

/// A 429 with a short hint.
pub(crate) fn throttle(content_type: &str, body: &'static str) -> Response<Body> {
    let builder = Response::builder().status(StatusCode::TOO_MANY_REQUESTS).header("retry-after-ms", "5");
    builder.header("content-type", content_type).body(body.into()).unwrap()
}

pub(crate) fn rate_limited() -> Response<Body> {
    throttle(
        "application/json",
        r#"{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#,
    )
}
