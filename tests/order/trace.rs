//! A trace layer above sees one call; below, each attempt, with its number.

use std::sync::{Arc, Mutex};

use http::Request;
use tower::{ServiceBuilder, ServiceExt};
use tower_429::{ResendCount, RetryOn429Layer};
use tower_http::trace::{MakeSpan, TraceLayer};

use crate::server::{Body, get, server, throttle_first};

/// Makes a span for each request that it sees, and notes how often that was sent before.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Option<u32>>>>);

impl<B> MakeSpan<B> for Spans {
    fn make_span(&mut self, request: &Request<B>) -> tracing::Span {
        let resent = request.extensions().get::<ResendCount>().map(|count| count.0);
        self.0.lock().unwrap().push(resent);
        tracing::Span::none()
    }
}

#[tokio::test(start_paused = true)]
async fn above_is_one_span_a_call_and_below_one_an_attempt() {
    let (calls, attempts) = (Spans::default(), Spans::default());
    let (server, _) = server(throttle_first(1));
    let stack = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http().make_span_with(calls.clone()))
        .layer(RetryOn429Layer::new())
        .layer(TraceLayer::new_for_http().make_span_with(attempts.clone()))
        .service(server);
    let request: Request<Body> = get("/");
    assert_eq!(stack.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(*calls.0.lock().unwrap(), [None]);
    assert_eq!(*attempts.0.lock().unwrap(), [None, Some(1)]);
}
