//! A server that throttles the first two requests, and remembers what it was sent.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response};
use tokio::net::TcpListener;

pub(crate) const REQUEST: &str = r#"{"model":"m"}"#;
pub(crate) const ANSWER: &str = r#"{"answer":42}"#;
const REFUSAL: &str =
    r#"{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;

pub(crate) struct Server {
    pub(crate) url: String,
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Server {
    /// Each of the three attempts has brought the same request, whole.
    pub(crate) fn assert_sent_three_times(&self) {
        assert_eq!(*self.bodies.lock().unwrap(), [REQUEST; 3]);
    }
}

pub(crate) async fn refusing_twice() -> Server {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    let handler = move |request: Request<Body>| async move {
        let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
        let mut seen = seen.lock().unwrap();
        seen.push(body);
        let response = Response::builder().header("content-type", "application/json");
        match seen.len() {
            1 | 2 => response.status(429).header("retry-after-ms", "5").body(Body::from(REFUSAL)).unwrap(),
            _ => response.body(Body::from(ANSWER)).unwrap(),
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(handler)).await });
    Server { url, bodies }
}
