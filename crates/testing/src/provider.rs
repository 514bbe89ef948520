//! [`Provider`]: the service, and a handle to read and change it while it runs.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use crate::account::Account;
use crate::builder::{Builder, Config};
use crate::state::Shared;
use crate::time::seconds;
use crate::{ProviderBody, ProviderFuture, Seen};

/// An OpenAI-like server: a [`Service`] of HTTP requests with any method and path.
///
/// Clones share all state. Give one to the code under test and keep one to read
/// [the counts](Self::seen). The provider uses tokio's clock, so it works with a paused clock.
///
/// Limits and counts are per key. A key is the `authorization` (or `api-key`) header and the `model` in
/// the JSON body. The buckets of a key start with its first request.
///
/// [`level_requests`](Self::level_requests), [`level_tokens`](Self::level_tokens) and
/// [`wait_for`](Self::wait_for) read the key of the first request. Before the first request, they read
/// a new key. Methods that change something change it for all keys.
#[derive(Clone, Debug)]
pub struct Provider {
    shared: Arc<Shared>,
}

impl Default for Provider {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl Provider {
    pub(crate) fn new(config: Config) -> Self {
        Self { shared: Arc::new(Shared::new(config)) }
    }

    /// Creates a builder.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns the counts of calls and responses up to now.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.shared.lock().seen(Instant::now())
    }

    /// Returns the number of calls in flight, of all keys.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.lock().in_flight(Instant::now())
    }

    /// Changes the limit on calls of each key in flight. `None` removes the limit.
    ///
    /// Calls in flight continue, so they can exceed a lower limit for a time.
    pub fn set_at_once(&self, calls: Option<usize>) {
        self.shared.lock().config.at_once = calls;
    }

    /// Multiplies the capacity and the rate of all limits by `factor`, as a change of tier does.
    ///
    /// A bucket keeps at most its new capacity. A negative factor or NaN counts as 0.
    pub fn cut(&self, factor: f64) {
        self.shared.lock().cut(factor.clamp(0.0, 1e9).max(0.0), Instant::now());
    }

    /// Throttles every call with `insufficient_quota` from now on.
    pub fn end_quota(&self) {
        self.shared.lock().quota_ended = true;
    }

    /// Reverts [`end_quota`](Self::end_quota), and restarts the count of
    /// [`quota_of`](Builder::quota_of) at 0.
    pub fn restore_quota(&self) {
        self.shared.lock().restore_quota();
    }

    /// Returns the requests in the bucket now. The value is negative in debt, and infinite without a
    /// limit.
    #[must_use]
    pub fn level_requests(&self) -> f64 {
        let level = |account: &Account| account.requests.as_ref().map(|bucket| bucket.level());
        self.oracle(level).unwrap_or(f64::INFINITY)
    }

    /// Returns the tokens in the bucket now. The value is negative in debt, and infinite without a
    /// limit.
    #[must_use]
    pub fn level_tokens(&self) -> f64 {
        let level = |account: &Account| account.tokens.as_ref().map(|bucket| bucket.level());
        self.oracle(level).unwrap_or(f64::INFINITY)
    }

    /// Returns the requests in the hidden bucket now. The value is infinite without a hidden limit.
    #[must_use]
    pub fn level_hidden(&self) -> f64 {
        let level = |account: &Account| account.hidden.as_ref().map(|bucket| bucket.level());
        self.oracle(level).unwrap_or(f64::INFINITY)
    }

    /// Returns the time until all buckets accept a call that pays this many tokens on arrival.
    ///
    /// The hidden bucket is included. The time is [`LONGEST_WAIT`](crate::LONGEST_WAIT) if the call is
    /// never accepted. Calls in flight and the quota are not considered.
    #[must_use]
    pub fn wait_for(&self, tokens: f64) -> Duration {
        seconds(self.oracle(|account| account.wait_for(tokens)))
    }

    fn oracle<T>(&self, read: impl FnOnce(&Account) -> T) -> T {
        self.shared.lock().oracle(Instant::now(), read)
    }
}

impl<B: Body> Service<Request<B>> for Provider {
    type Response = Response<ProviderBody>;
    type Error = Infallible;
    type Future = ProviderFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ProviderFuture::new(Arc::clone(&self.shared), request)
    }
}
