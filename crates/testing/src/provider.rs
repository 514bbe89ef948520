//! The service itself, and the handle to look into it and to change it while it runs.

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

/// An OpenAI-like server: a [`Service`] of HTTP requests, whatever their method and path.
///
/// Clones share everything: hand one to the code under test and keep one to ask
/// [what it saw](Self::seen). All time is tokio's, so that a paused clock drives it.
///
/// Limits and counts are per key: the `authorization` (or `api-key`) header and the `model` in the
/// JSON body. A key's buckets begin to refill with its first request. Methods that look at one
/// key's buckets ([`level_requests`](Self::level_requests), [`level_tokens`](Self::level_tokens),
/// [`wait_for`](Self::wait_for)) speak of the key that sent the first request, and of a fresh one
/// before that; methods that change something change it for all keys.
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

    /// Starts to set up a provider.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Tells what arrived and how it was answered, up to now.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.shared.lock().seen(Instant::now())
    }

    /// Calls being served now, of all keys.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.lock().in_flight(Instant::now())
    }

    /// Changes how many calls of a key are served at once; `None` for any number.
    ///
    /// Calls in flight stay: after a decrease there may be more of them for a while.
    pub fn set_at_once(&self, calls: Option<usize>) {
        self.shared.lock().config.at_once = calls;
    }

    /// Makes all limits `factor` times what they are, in size and in rate, as when a tier changes.
    ///
    /// A level that does not fit any more is lost. A negative factor or NaN counts as 0.
    pub fn cut(&self, factor: f64) {
        self.shared.lock().cut(factor.clamp(0.0, 1e9).max(0.0), Instant::now());
    }

    /// Refuses every call with `insufficient_quota` from now on.
    pub fn end_quota(&self) {
        self.shared.lock().quota_ended = true;
    }

    /// Takes back [`end_quota`](Self::end_quota), and counts towards
    /// [`quota_of`](Builder::quota_of) from 0 again.
    pub fn restore_quota(&self) {
        self.shared.lock().restore_quota();
    }

    /// The requests that the limit on requests would let in at once now: negative in debt, infinite
    /// without a limit.
    #[must_use]
    pub fn level_requests(&self) -> f64 {
        let level = |account: &Account| account.requests.as_ref().map(|bucket| bucket.level());
        self.oracle(level).unwrap_or(f64::INFINITY)
    }

    /// The tokens that the limit on tokens would let in at once now: negative in debt, infinite
    /// without a limit.
    #[must_use]
    pub fn level_tokens(&self) -> f64 {
        let level = |account: &Account| account.tokens.as_ref().map(|bucket| bucket.level());
        self.oracle(level).unwrap_or(f64::INFINITY)
    }

    /// The requests that the hidden limit would let in at once now; infinite without one.
    #[must_use]
    pub fn level_hidden(&self) -> f64 {
        let level = |account: &Account| account.hidden.as_ref().map(|bucket| bucket.level());
        self.oracle(level).unwrap_or(f64::INFINITY)
    }

    /// How long until the buckets, the hidden one included, would accept a call that pays so many
    /// tokens on arrival. [`LONGEST_WAIT`](crate::LONGEST_WAIT) if never.
    ///
    /// Calls in flight and a quota that has ended are not considered.
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
