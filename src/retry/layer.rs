//! [`RetryOn429Layer`]: the builder of the service.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Response, request, response};
use tower_layer::Layer;

use super::clone_body::{ByClone, CloneWith, NoClone};
use super::config::{Config, Shared, TokenEstimator};
use super::policy::RetryOn;
use super::service::RetryOn429;
use crate::backoff::Backoff;
use crate::classify::Verdict;
use crate::dialect::Dialect;
use crate::event::QuotaEvent;
use crate::quota::{ControllerConfig, PacingConfig, Quotas};
use crate::request::QuotaKey;
use crate::response::rejection::LocalRejection;
use crate::vocabulary::ReleaseAt;

/// Retries throttled requests, paces requests, and shares one cooldown between the calls of a key.
///
/// See the [module documentation](crate::retry) for what is retried and when. The settings are grouped into five topics:
/// what is retried, delays, the queue, pacing, and keys and costs. No setting is needed.
///
/// `C` is how a request body is copied. It is [`ByClone`] unless [`clone_body`](Self::clone_body),
/// [`no_replay`](Self::no_replay) or [`replay`](Self::replay) sets another.
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct RetryOn429Layer<C = ByClone> {
    clone_body: C,
    shared: Arc<Shared>,
}

impl RetryOn429Layer {
    /// Creates a layer with the default settings: classify, pace, cool down and retry.
    pub fn new() -> Self {
        let shared = Shared { config: Config::default(), quotas: Quotas::default(), budget: Arc::default() };
        Self { clone_body: ByClone, shared: Arc::new(shared) }
    }
}

impl Default for RetryOn429Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> RetryOn429Layer<C> {
    fn set(mut self, set: impl FnOnce(&mut Config)) -> Self {
        set(&mut Arc::make_mut(&mut self.shared).config);
        self
    }

    fn set_controller(self, set: impl FnOnce(&mut ControllerConfig)) -> Self {
        self.set(|config| set(Arc::make_mut(&mut config.controller)))
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// # What is retried
impl<C> RetryOn429Layer<C> {
    /// Sets which answers are retried. Default: [`RetryOn::throttling`].
    pub fn retry_on(self, what: RetryOn) -> Self {
        self.set(|config| config.allowed.retry_on = what)
    }

    /// Sets how many times a throttled call is retried. Default:
    /// [`DEFAULT_MAX_RETRIES`](crate::retry::DEFAULT_MAX_RETRIES). With 0, calls are only paced, and 429s are returned.
    pub fn max_retries(self, n: u32) -> Self {
        self.set(|config| config.allowed.max_retries = n)
    }

    /// Sets how many times a call is retried after an answer or error that [`retry_on`](Self::retry_on) adds. Default:
    /// [`DEFAULT_MAX_OTHER_RETRIES`](crate::retry::DEFAULT_MAX_OTHER_RETRIES).
    pub fn max_other_retries(self, n: u32) -> Self {
        self.set(|config| config.allowed.max_other_retries = n)
    }

    /// Sets a function that classifies answers other than successes. It returns `None` for the built-in classification.
    ///
    /// It gets the body for the statuses of [`reads_body`](crate::classify::reads_body), up to 64 KiB. It also gets what
    /// looks like an error inside a success (see [errors inside a 200](crate::retry#errors-inside-a-200)): the head of the
    /// answer with the document, or with one line of an event.
    /// [`Kind::Pass`](crate::classify::Kind::Pass) says that it is no error.
    pub fn classify(self, with: impl Fn(&response::Parts, &[u8]) -> Option<Verdict> + Send + Sync + 'static) -> Self {
        self.set(|config| config.classify = Some(Arc::new(with)))
    }

    /// Sets whether an event stream is held back until its first event. Default: false.
    ///
    /// A stream that begins with a throttling error is then retried like a 429. Only answers to `POST` are held back. Errors
    /// later in a stream are always passed on. They also start the key's cooldown.
    pub fn peek_first_event(self, on: bool) -> Self {
        self.set(|config| config.peek_first_event = on)
    }

    /// Copies request bodies that are not `Clone` with a function: `.clone_body(Body::try_clone)`.
    ///
    /// A closure needs the type of its argument: `.clone_body(|body: &Body| body.try_clone())`. It is a `fn` pointer, without
    /// captures, so that the type of the service can be named.
    pub fn clone_body<B>(self, how: fn(&B) -> Option<B>) -> RetryOn429Layer<CloneWith<B>> {
        self.replay(CloneWith(how))
    }

    /// Sends each call once, so that no body has to be copied. Calls are still paced and cooled down.
    pub fn no_replay(self) -> RetryOn429Layer<NoClone> {
        self.replay(NoClone)
    }

    /// Copies request bodies with a [`CloneBody`](crate::CloneBody) of your own.
    pub fn replay<D>(self, how: D) -> RetryOn429Layer<D> {
        RetryOn429Layer { clone_body: how, shared: self.shared }
    }

    /// Sets a header that gets one random key for each call, the same on every attempt. A header that is already set stays.
    /// Default: none.
    pub fn idempotency_key(self, header: HeaderName) -> Self {
        self.set(|config| config.idempotency_key = Some(header))
    }

    /// Sets a header that gets the number of earlier attempts, on each further attempt. Default: none.
    pub fn retry_count_header(self, header: HeaderName) -> Self {
        self.set(|config| config.retry_count = Some(header))
    }

    /// Sets whether returned 429s get the header `x-should-retry: false`. Default: false.
    ///
    /// The header ends the retry loops of OpenAI's and Anthropic's SDKs, so it suits a gateway. Answers that this layer does
    /// not retry, such as a 500 without [`RetryOn::openai_sdk`], do not get it.
    pub fn mark_final(self, on: bool) -> Self {
        self.set(|config| config.mark_final = on)
    }
}

/// # Delays
impl<C> RetryOn429Layer<C> {
    /// Sets the maximum server delay to honour. Default: [`DEFAULT_MAX_WAIT`](crate::quota::DEFAULT_MAX_WAIT).
    ///
    /// If the server asks for more, the response is returned at once, and later calls for the key fail fast until a probe
    /// succeeds. The first probe is sent after this time, the next ones after twice as long each time, up to ten minutes.
    pub fn max_wait(self, time: Duration) -> Self {
        self.set(|config| config.allowed.max_wait = time).set_controller(|controller| controller.max_wait = time)
    }

    /// Sets the maximum total time that a call sleeps after 429s, over all attempts. Default:
    /// [`DEFAULT_MAX_SLEEP`](crate::retry::DEFAULT_MAX_SLEEP).
    pub fn max_sleep(self, time: Duration) -> Self {
        self.set(|config| config.allowed.max_sleep = time)
    }

    /// Sets the first and the longest delay after a 429 that states none. The delay doubles in between. Defaults:
    /// [`DEFAULT_BACKOFF`](crate::retry::DEFAULT_BACKOFF), [`DEFAULT_MAX_BACKOFF`](crate::retry::DEFAULT_MAX_BACKOFF).
    pub fn backoff(self, first: Duration, max: Duration) -> Self {
        self.set_controller(|controller| controller.backoff = Backoff { first, max })
    }

    /// Draws all jitter from a seed, so that a test is reproducible.
    ///
    /// Never use it in production: clients with the same seed retry at the same moment.
    /// [Idempotency keys](Self::idempotency_key) stay random, since two calls must never share one.
    pub fn seed(self, seed: u64) -> Self {
        self.shared.quotas.seed(seed);
        self
    }
}

/// # Queue
impl<C> RetryOn429Layer<C> {
    /// Sets how many calls of each [`Priority`](crate::Priority) may wait for a key. Default: no limit.
    ///
    /// Up to 3 `n` calls may wait in all, so a queue full of batch calls does not reject an interactive one. Further calls are
    /// rejected locally at once (`local_queue_full`).
    pub fn max_queue(self, n: usize) -> Self {
        self.set(|config| config.max_queue = Some(n))
    }

    /// Sets the maximum time that a call waits in the queue, without its sleeps after 429s. Default: no limit.
    ///
    /// After that time the call is rejected locally (`local_queue_timeout`).
    pub fn queue_timeout(self, time: Duration) -> Self {
        self.set(|config| config.queue_timeout = Some(time))
    }

    /// Sets how local rejections are answered. Default: [`LocalRejection::response`].
    pub fn reject_with(self, response: impl Fn(&LocalRejection) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        self.set(|config| config.reject_with = Arc::new(response))
    }

    /// Sets when a call's permit is released. Default: [`ReleaseAt::BodyEnd`].
    ///
    /// With [`ReleaseAt::Headers`], bodies of successes are not searched for errors.
    pub fn release_at(self, when: ReleaseAt) -> Self {
        self.set(|config| config.release_at = when)
    }

    /// Sets how long a response body may stay unpolled before its permit is lent to a waiting call of the same key; see
    /// [unread bodies](crate::limit#unread-bodies). `None` turns lending off. Default:
    /// [`DEFAULT_LEND_UNREAD_AFTER`](crate::limit::DEFAULT_LEND_UNREAD_AFTER).
    pub fn lend_unread_after(self, time: Option<Duration>) -> Self {
        self.set(|config| config.lend_unread_after = time)
    }
}

/// # Pacing
impl<C> RetryOn429Layer<C> {
    /// Sets how calls are held back before the server throttles them. Default: [`PacingConfig::new`].
    ///
    /// `.pacing(PacingConfig::off())` leaves retries and the cooldown only.
    pub fn pacing(self, pacing: PacingConfig) -> Self {
        self.set_controller(|controller| controller.pacing = pacing)
    }

    /// Sets the provider's dialect: its error codes and how it counts tokens. Default: by the request's host, else
    /// [`Dialect::GENERIC`], which classifies by the shape of an answer.
    pub fn dialect(self, dialect: &'static Dialect) -> Self {
        self.set(|config| config.dialect = Some(dialect))
    }

    /// Registers a callback for quota events. It runs inline and must not block.
    ///
    /// It runs without any lock, on the task of the call that learned of the event, or that reads the body which reports it. If
    /// it panics, only that call panics.
    ///
    /// ```
    /// use tower_429::{QuotaEvent, RetryOn429Layer};
    ///
    /// let layer = RetryOn429Layer::new().on_event(|_key, event| {
    ///     if let QuotaEvent::LimitChanged { dimension, from, to } = event {
    ///         eprintln!("limit on {dimension}: {from} is now {to}");
    ///     }
    /// });
    /// # let _ = layer;
    /// ```
    pub fn on_event(self, callback: impl Fn(QuotaKey, &QuotaEvent) + Send + Sync + 'static) -> Self {
        self.set(|config| config.on_event = Some(Arc::new(callback)))
    }

    /// Returns the state of this layer, to read it or to share it.
    pub fn quotas(&self) -> Quotas {
        self.shared.quotas.clone()
    }

    /// Uses the state of another layer. The layer that first meets a key sets up its controller.
    pub fn with_quotas(mut self, quotas: Quotas) -> Self {
        Arc::make_mut(&mut self.shared).quotas = quotas;
        self
    }
}

/// # Keys and costs
impl<C> RetryOn429Layer<C> {
    /// Sets a function that returns the key of a call, or `None` for the default key.
    ///
    /// A [`QuotaKey`] in the request's extensions takes precedence.
    pub fn key(self, of: impl Fn(&request::Parts) -> Option<QuotaKey> + Send + Sync + 'static) -> Self {
        self.set(|config| config.key = Some(Arc::new(of)))
    }

    /// Sets a function that maps a model to the pool whose limits it shares: `.pool(tower_429::pool::openai_base)`. Default:
    /// the model itself.
    ///
    /// For a request without a model it gets the resource (`batches`), or an empty name.
    pub fn pool(self, of: impl Fn(&str) -> &str + Send + Sync + 'static) -> Self {
        self.set(|config| config.pool = Some(Arc::new(of)))
    }

    /// Sets the maximum number of keys that are remembered, by all layers that share this layer's [`Quotas`]. 0 counts as 1.
    /// Default: [`MAX_KEYS`](crate::quota::MAX_KEYS).
    ///
    /// ```
    /// use tower_429::RetryOn429Layer;
    ///
    /// // A gateway for many tenants, each with its own credential.
    /// let layer = RetryOn429Layer::new().max_keys(100_000);
    /// # let _ = layer;
    /// ```
    pub fn max_keys(self, n: usize) -> Self {
        self.shared.quotas.set_max_keys(n);
        self
    }

    /// Sets an estimator for the tokens of a call. Default: an estimate from the JSON body.
    ///
    /// The default counts texts by their characters and script, images and files as a fixed number, and adds or compares the
    /// maximum output as the provider does.
    pub fn tokens(self, estimator: impl TokenEstimator + 'static) -> Self {
        self.set(|config| config.tokens = Some(Arc::new(estimator)))
    }
}

impl<S, C: Clone> Layer<S> for RetryOn429Layer<C> {
    type Service = RetryOn429<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryOn429::from_parts(inner, self.clone_body.clone(), Arc::clone(&self.shared))
    }
}
