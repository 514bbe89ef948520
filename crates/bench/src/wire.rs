//! The server as the schemes see it, with a note of each attempt.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::Service;
use tower_429_testing::{Provider, ProviderBody};

/// The header that says which call an attempt belongs to.
pub const CALL_HEADER: &str = "x-bench-call";

/// One attempt, noted when its answer's head was there.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// The call it belongs to.
    pub call: usize,
    /// When it was sent, in seconds of the run.
    pub sent: f64,
    /// Whether it was throttled.
    pub throttled: bool,
}

/// A provider that notes what is sent to it.
#[derive(Debug, Clone)]
pub struct Wire {
    provider: Provider,
    start: Instant,
    attempts: Arc<Mutex<Vec<Attempt>>>,
}

impl Wire {
    /// A wire to this provider; its clock starts now.
    pub fn new(provider: Provider) -> Self {
        Self { provider, start: Instant::now(), attempts: Arc::default() }
    }

    /// What was sent so far.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Service<Request<Full<Bytes>>> for Wire {
    type Response = Response<ProviderBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Full<Bytes>>>::poll_ready(&mut self.provider, cx)
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let number = request.headers().get(CALL_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        let (call, sent) = (number.unwrap_or(0), self.start.elapsed().as_secs_f64());
        let attempts = Arc::clone(&self.attempts);
        let answer = self.provider.call(request);
        Box::pin(async move {
            let Ok(response) = answer.await;
            let throttled = !response.status().is_success();
            attempts.lock().unwrap_or_else(PoisonError::into_inner).push(Attempt { call, sent, throttled });
            Ok(response)
        })
    }
}
