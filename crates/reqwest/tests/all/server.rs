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

/// Refuses the first `n` requests with a short hint, and accepts the others.
pub(crate) async fn refusing(n: usize) -> Server {
    serve(move |at, _| if at < n { throttle() } else { Response::new("done".into()) }).await
}

pub(crate) fn throttle() -> Response<Body> {
    let body =
        r#"{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
    let builder = Response::builder().status(StatusCode::TOO_MANY_REQUESTS).header("retry-after-ms", "5");
    builder.header("content-type", "application/json").body(body.into()).unwrap()
}
