//! [`RetryOn429Layer`]: the settings, and the state that all services of the layer share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, request, response};
use tower_layer::Layer;

use super::budget::Budget;
use super::policy::{Allowed, RetryOn};
use super::service::RetryOn429;
use crate::backoff::Backoff;
use crate::classify::Verdict;
use crate::dialect::Dialect;
use crate::event::QuotaEvent;
use crate::limit::ReleaseAt;
use crate::quota::{ControllerConfig, Quotas};
use crate::request::{Cost, QuotaKey};
use crate::response::rejection::{LocalRejection, RejectWith};
use crate::retry::clone_body::{ByClone, CloneWith, NoClone};
use crate::wait_queue::DEFAULT_LEND_UNREAD_AFTER;

type KeyOf = Arc<dyn Fn(&request::Parts) -> Option<QuotaKey> + Send + Sync>;
type OnEvent = Arc<dyn Fn(QuotaKey, &QuotaEvent) + Send + Sync>;
type ClassifyWith = Arc<dyn Fn(&response::Parts, &[u8]) -> Option<Verdict> + Send + Sync>;

/// Estimates what a call costs, for those who bring a tokenizer.
///
/// ```
/// use tower_429::{Cost, RetryOn429Layer};
///
/// // `body` is empty where it cannot be looked into.
/// let layer = RetryOn429Layer::new().tokens(|_: &http::request::Parts, body: &[u8]| Some(Cost::tokens(body.len() as f64 / 3.5)));
/// # let _ = layer;
/// ```
pub trait TokenEstimator: Send + Sync {
    /// The cost of a call; `None` for the built-in estimate.
    fn estimate(&self, parts: &request::Parts, body: &[u8]) -> Option<Cost>;
}

impl<F: Fn(&request::Parts, &[u8]) -> Option<Cost> + Send + Sync> TokenEstimator for F {
    fn estimate(&self, parts: &request::Parts, body: &[u8]) -> Option<Cost> {
        self(parts, body)
    }
}

/// Retries what waiting cures, paces what it sends, and shares one cooldown. See the [module documentation](crate::retry)
/// for examples.
///
/// `C` is how a request body is copied; it is [`ByClone`] unless [`clone_body`](Self::clone_body),
/// [`no_replay`](Self::no_replay) or [`replay`](Self::replay) says otherwise.
#[derive(Debug, Clone)]
pub struct RetryOn429Layer<C = ByClone> {
    clone_body: C,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) quotas: Quotas,
    pub(super) budget: Arc<Budget>,
}

#[derive(Clone)]
pub(super) struct Config {
    pub(super) allowed: Allowed,
    pub(super) controller: Arc<ControllerConfig>,
    pub(super) max_queue: Option<usize>,
    pub(super) queue_timeout: Option<Duration>,
    pub(super) dialect: Option<&'static Dialect>,
    pub(super) pool: Option<fn(&str) -> &str>,
    pub(super) key: Option<KeyOf>,
    pub(super) classify: Option<ClassifyWith>,
    pub(super) tokens: Option<Arc<dyn TokenEstimator>>,
    pub(super) idempotency_key: Option<HeaderName>,
    pub(super) retry_count: Option<HeaderName>,
    pub(super) mark_final: bool,
    pub(super) peek_first_event: bool,
    pub(super) on_event: Option<OnEvent>,
    pub(super) reject_with: RejectWith,
    pub(super) release_at: ReleaseAt,
    pub(super) lend_unread_after: Option<Duration>,
}

impl RetryOn429Layer {
    /// Everything automatic: classify, pace, cool down, retry. No number is needed.
    pub fn new() -> Self {
        let config = Config {
            allowed: Allowed::default(),
            controller: Arc::default(),
            max_queue: None,
            queue_timeout: None,
            dialect: None,
            pool: None,
            key: None,
            classify: None,
            tokens: None,
            idempotency_key: None,
            retry_count: None,
            mark_final: false,
            peek_first_event: false,
            on_event: None,
            reject_with: LocalRejection::response,
            release_at: ReleaseAt::BodyEnd,
            lend_unread_after: Some(DEFAULT_LEND_UNREAD_AFTER),
        };
        let shared = Shared { config, quotas: Quotas::default(), budget: Arc::default() };
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

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    fn set_gate(self, set: impl FnOnce(&mut ControllerConfig)) -> Self {
        self.set(|config| set(Arc::make_mut(&mut config.controller)))
    }

    /// Copies request bodies with a function, where they are not `Clone`: `.clone_body(Body::try_clone)`.
    ///
    /// A closure needs its argument's type: `.clone_body(|body: &Body| body.try_clone())`.
    pub fn clone_body<B>(self, how: fn(&B) -> Option<B>) -> RetryOn429Layer<CloneWith<B>> {
        self.replay(CloneWith(how))
    }

    /// Never sends a call twice, so that its body need not be copied: paced and cooled down all the same.
    pub fn no_replay(self) -> RetryOn429Layer<NoClone> {
        self.replay(NoClone)
    }

    /// Copies request bodies with a [`CloneBody`](crate::CloneBody) of your own.
    pub fn replay<D>(self, how: D) -> RetryOn429Layer<D> {
        RetryOn429Layer { clone_body: how, shared: self.shared }
    }

    /// Retries of a throttled call. Default: [`DEFAULT_MAX_RETRIES`](crate::retry::DEFAULT_MAX_RETRIES). 0: the controller
    /// only; 429s are handed back.
    #[must_use]
    pub fn max_retries(self, n: u32) -> Self {
        self.set(|config| config.allowed.max_retries = n)
    }

    /// Which answers are retried. Default: [`RetryOn::throttling`].
    #[must_use]
    pub fn retry_on(self, what: RetryOn) -> Self {
        self.set(|config| config.allowed.retry_on = what)
    }

    /// Retries of the classes that [`retry_on`](Self::retry_on) adds. Default:
    /// [`DEFAULT_MAX_OTHER_RETRIES`](crate::retry::DEFAULT_MAX_OTHER_RETRIES).
    #[must_use]
    pub fn max_other_retries(self, n: u32) -> Self {
        self.set(|config| config.allowed.max_other_retries = n)
    }

    /// The longest hint that is waited for. A longer one is handed back at once and closes its key for others, too; one
    /// of their calls goes as a probe after this time, then after twice as long each time, up to ten minutes. Default:
    /// [`DEFAULT_MAX_WAIT`](crate::quota::DEFAULT_MAX_WAIT).
    #[must_use]
    pub fn max_wait(self, time: Duration) -> Self {
        self.set(|config| config.allowed.max_wait = time).set_gate(|controller| controller.max_wait = time)
    }

    /// The most that a call sleeps after 429s, in all attempts. Default:
    /// [`DEFAULT_MAX_SLEEP`](crate::retry::DEFAULT_MAX_SLEEP).
    #[must_use]
    pub fn max_sleep(self, time: Duration) -> Self {
        self.set(|config| config.allowed.max_sleep = time)
    }

    /// The first and the longest wait after a 429 without a hint, doubling in between. Defaults:
    /// [`DEFAULT_BACKOFF`](crate::retry::DEFAULT_BACKOFF), [`DEFAULT_MAX_BACKOFF`](crate::retry::DEFAULT_MAX_BACKOFF).
    #[must_use]
    pub fn backoff(self, first: Duration, max: Duration) -> Self {
        self.set_gate(|controller| controller.backoff = Backoff { first, max })
    }

    /// At most `n` calls of each [`Priority`](crate::Priority) wait for a key, and so at most 3 `n` in all. A queue full of
    /// batch calls does not reject an interactive one. More calls are answered locally at once (`local_queue_full`).
    /// Default: no bound.
    #[must_use]
    pub fn max_queue(self, n: usize) -> Self {
        self.set(|config| config.max_queue = Some(n))
    }

    /// No call waits longer than this for its turn, sleeps after 429s not counted; then it is answered locally
    /// (`local_queue_timeout`). Default: no bound.
    #[must_use]
    pub fn queue_timeout(self, time: Duration) -> Self {
        self.set(|config| config.queue_timeout = Some(time))
    }

    /// How many calls a new key may have in flight before anything is known of it. Default:
    /// [`DEFAULT_INITIAL_WINDOW`](crate::quota::DEFAULT_INITIAL_WINDOW).
    #[must_use]
    pub fn initial_window(self, n: u32) -> Self {
        self.set_gate(|controller| controller.initial_window = n)
    }

    /// Whether calls are guard back before the server throttles them. Default: true. False: retry and cooldown only.
    #[must_use]
    pub fn pacing(self, on: bool) -> Self {
        self.set_gate(|controller| controller.pacing = on)
    }

    /// What is known of the limit beforehand; the server's headers correct it.
    #[must_use]
    pub fn requests_per_minute(self, n: u32) -> Self {
        self.set_gate(|controller| controller.requests_per_minute = Some(f64::from(n.max(1))))
    }

    /// What is known of the limit beforehand; the server's headers correct it.
    #[must_use]
    pub fn tokens_per_minute(self, n: u32) -> Self {
        self.set_gate(|controller| controller.tokens_per_minute = Some(f64::from(n.max(1))))
    }

    /// How the server speaks and counts. Default: by its host, else [`Dialect::GENERIC`], which tells by shape.
    #[must_use]
    pub fn dialect(self, dialect: &'static Dialect) -> Self {
        self.set(|config| config.dialect = Some(dialect))
    }

    /// Is told what is worth knowing of a key: a limit that changed, a key that closes or opens, a call that is not
    /// remembered. Called at once, without any lock, on the task of the call that learned of it, or that reads the body which
    /// says it; it had better be quick.
    ///
    /// ```
    /// use tower_429::{QuotaEvent, RetryOn429Layer};
    ///
    /// let layer = RetryOn429Layer::new().on_event(|_key, event| {
    ///     if let QuotaEvent::LimitChanged { dimension, from, to } = event {
    ///         eprintln!("limit on {dimension:?}: {from} is now {to}");
    ///     }
    /// });
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn on_event(self, tell: impl Fn(QuotaKey, &QuotaEvent) + Send + Sync + 'static) -> Self {
        self.set(|config| config.on_event = Some(Arc::new(tell)))
    }

    /// Maps a model to the pool whose limits it shares: `.pool(tower_429::pool::openai_base)`. Default: the model itself. A
    /// request without a model is mapped by its resource (`batches`), or by an empty name.
    #[must_use]
    pub fn pool(self, of: fn(&str) -> &str) -> Self {
        self.set(|config| config.pool = Some(of))
    }

    /// Finds a call's key; `None` for the default key. A [`QuotaKey`] in the request's extensions goes first.
    #[must_use]
    pub fn key(self, of: impl Fn(&request::Parts) -> Option<QuotaKey> + Send + Sync + 'static) -> Self {
        self.set(|config| config.key = Some(Arc::new(of)))
    }

    /// Judges an answer that is no success; `None` for the built-in judgement. The body is given for the statuses of
    /// [`reads_body`](crate::classify::reads_body), up to 64 KiB.
    ///
    /// It also judges what looks like an error within a success (see [errors inside a 200](crate::retry)): then it is given
    /// the answer's head and the document, or the one line of the event. [`Kind::Pass`](crate::classify::Kind::Pass) says
    /// that it is none.
    #[must_use]
    pub fn classify(self, with: impl Fn(&response::Parts, &[u8]) -> Option<Verdict> + Send + Sync + 'static) -> Self {
        self.set(|config| config.classify = Some(Arc::new(with)))
    }

    /// Estimates tokens. Default: the texts of a JSON body by their characters and script, images and files by a fixed number,
    /// and the most that may come back, as the provider counts.
    #[must_use]
    pub fn tokens(self, estimator: impl TokenEstimator + 'static) -> Self {
        self.set(|config| config.tokens = Some(Arc::new(estimator)))
    }

    /// Puts one random key for each call into this header, the same on every attempt, unless the header is set already.
    /// Default: none.
    #[must_use]
    pub fn idempotency_key(self, header: HeaderName) -> Self {
        self.set(|config| config.idempotency_key = Some(header))
    }

    /// Puts the number of attempts before into this header of each further attempt. Default: none.
    #[must_use]
    pub fn retry_count_header(self, header: HeaderName) -> Self {
        self.set(|config| config.retry_count = Some(header))
    }

    /// Whether 429s that are handed back get `x-should-retry: false`, which ends the retry loops of OpenAI's and
    /// Anthropic's SDKs: for a gateway. Answers that this layer does not retry, such as a 500 without
    /// [`RetryOn::openai_sdk`], are left as they are. Default: false.
    #[must_use]
    pub fn mark_final(self, on: bool) -> Self {
        self.set(|config| config.mark_final = on)
    }

    /// Whether the head of an event stream is guard back until its first event, so that a stream that begins with a
    /// throttling error is retried like a 429: nothing has been delivered yet. Only answers to `POST` are. Default:
    /// false. Errors later in a stream are always passed on; they cool the key down all the same.
    #[must_use]
    pub fn peek_first_event(self, on: bool) -> Self {
        self.set(|config| config.peek_first_event = on)
    }

    /// What a call that is not let in is answered with. Default: [`LocalRejection::response`].
    #[must_use]
    pub fn reject_with(self, throttle: fn(&LocalRejection) -> http::Response<Bytes>) -> Self {
        self.set(|config| config.reject_with = throttle)
    }

    /// When a call's place among those in flight is free again. Default: [`ReleaseAt::BodyEnd`]. With
    /// [`ReleaseAt::Headers`], bodies of successes are not looked through for errors.
    #[must_use]
    pub fn release_at(self, when: ReleaseAt) -> Self {
        self.set(|config| config.release_at = when)
    }

    /// How long a response body may stay unpolled before its permit is lent to a call that waits for the same key; see
    /// [unread bodies](crate::limit#unread-bodies). Default:
    /// [`DEFAULT_LEND_UNREAD_AFTER`](crate::limit::DEFAULT_LEND_UNREAD_AFTER). `None`: never.
    #[must_use]
    pub fn lend_unread_after(self, time: Option<Duration>) -> Self {
        self.set(|config| config.lend_unread_after = time)
    }

    /// Draws all jitter from a seed, so that a test is reproducible. Never use it in production: clients with one seed come
    /// back at the same moment. [Idempotency keys](Self::idempotency_key) stay random: two calls must never share one.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        self.shared.quotas.seed(seed);
        self
    }

    /// The most keys that are remembered, by all layers that share this one's [`Quotas`]. Default:
    /// [`MAX_KEYS`](crate::quota::MAX_KEYS). 0 counts as 1.
    ///
    /// ```
    /// use tower_429::RetryOn429Layer;
    ///
    /// // A gateway in front of many tenants, each with a credential of its own.
    /// let layer = RetryOn429Layer::new().max_keys(100_000);
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn max_keys(self, n: usize) -> Self {
        self.shared.quotas.set_max_keys(n);
        self
    }

    /// The state of this layer: share it, or look at it.
    pub fn quotas(&self) -> Quotas {
        self.shared.quotas.clone()
    }

    /// Uses the state of another layer. Whichever layer meets a key first decides how its controller is set up.
    #[must_use]
    pub fn with_quotas(mut self, quotas: Quotas) -> Self {
        Arc::make_mut(&mut self.shared).quotas = quotas;
        self
    }
}

impl<S, C: Clone> Layer<S> for RetryOn429Layer<C> {
    type Service = RetryOn429<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryOn429::new(inner, self.clone_body.clone(), Arc::clone(&self.shared))
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("allowed", &self.allowed)
            .field("controller", &self.controller)
            .finish_non_exhaustive()
    }
}
