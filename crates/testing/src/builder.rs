//! [`Builder`]: the settings of a provider and their defaults.

use std::time::Duration;

use crate::knobs::{Answer, Charge, HintUnit, Hints, Payment, RateHeaders, Wording};
use crate::{Latency, Limit, Provider, ServiceTime};

/// Default number of events of a streamed response; see [`Builder::streaming`].
pub const DEFAULT_EVENTS: usize = 4;

/// Maximum number of foreign calls per second.
pub const MOST_FOREIGN_PER_SECOND: f64 = 10_000.0;

/// All settings of a provider.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) requests: Option<Limit>,
    pub(crate) tokens: Option<Limit>,
    pub(crate) hidden: Option<Limit>,
    pub(crate) at_once: Option<usize>,
    pub(crate) quota: Option<usize>,
    pub(crate) foreign: Option<Foreign>,
    pub(crate) shared_key: bool,
    pub(crate) charge: Charge,
    pub(crate) payment: Payment,
    pub(crate) rate_headers: RateHeaders,
    pub(crate) whole_second_resets: bool,
    pub(crate) hints: Hints,
    pub(crate) hint_unit: HintUnit,
    pub(crate) no_concurrency_hint: bool,
    pub(crate) wording: Wording,
    pub(crate) latency: Latency,
    pub(crate) service: ServiceTime,
    pub(crate) answer: Answer,
    pub(crate) events: usize,
    pub(crate) first_after: Duration,
    pub(crate) stream_error: Option<(usize, String)>,
    pub(crate) seed: u64,
}

/// Calls of other tenants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreign {
    pub(crate) per_second: f64,
    pub(crate) tokens: f64,
}

/// Configures a [`Provider`]. [`Provider::builder`] creates it.
///
/// Without settings, a provider has no limits and answers each call at once.
///
/// ```
/// use std::time::Duration;
/// use tower_429_testing::{Charge, Hints, Latency, Limit, Provider, ServiceTime, Wording};
///
/// let second = Duration::from_secs(1);
/// let provider = Provider::builder()
///     .requests(Limit::per_minute(500))
///     .tokens(Limit::per_minute(90_000))
///     .at_once(16)
///     .charge_throttled(Charge::Debt(0.25))
///     .hints(Hints::Headers)
///     .wording(Wording::BareConcurrency)
///     .latency(Latency::internet())
///     .service_time(ServiceTime::LogNormal { mean: second, sigma: 0.5 })
///     .seed(42)
///     .build();
/// assert_eq!(provider.level_requests(), 500.0);
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct Builder {
    config: Config,
}

impl Default for Builder {
    fn default() -> Self {
        Self { config: Config { events: DEFAULT_EVENTS, ..Config::default() } }
    }
}

impl Builder {
    /// Limits the requests of each key. Default: no limit, and no headers about requests.
    pub fn requests(mut self, limit: Limit) -> Self {
        self.config.requests = Some(limit);
        self
    }

    /// Limits the tokens of each key. Default: no limit, and no headers about tokens.
    ///
    /// A call that costs more than the capacity is accepted when the bucket is full. The bucket is then
    /// in debt.
    pub fn tokens(mut self, limit: Limit) -> Self {
        self.config.tokens = Some(limit);
        self
    }

    /// Adds a second limit on the requests of each key that no header shows. Default: none.
    ///
    /// Use it for a limit over a shorter time.
    pub fn hidden(mut self, limit: Limit) -> Self {
        self.config.hidden = Some(limit);
        self
    }

    /// Limits the calls of each key in flight. Default: no limit.
    pub fn at_once(mut self, calls: usize) -> Self {
        self.config.at_once = Some(calls);
        self
    }

    /// Throttles a key with `insufficient_quota` after this many accepted calls. Default: never.
    ///
    /// The provider checks the quota before all other limits and does not charge for this 429.
    pub fn quota_of(mut self, calls: usize) -> Self {
        self.config.quota = Some(calls);
        self
    }

    /// Simulates other tenants of each key, with calls at random times. Default: none.
    ///
    /// `calls_per_second` is an average, at most [`MOST_FOREIGN_PER_SECOND`]. Each call costs
    /// `tokens_each` tokens. These calls start with the key's first request. A call that meets an empty
    /// bucket is not charged.
    pub fn foreign(mut self, calls_per_second: f64, tokens_each: f64) -> Self {
        self.config.foreign = (calls_per_second > 0.0).then_some(Foreign {
            per_second: calls_per_second.min(MOST_FOREIGN_PER_SECOND),
            tokens: tokens_each.max(0.0),
        });
        self
    }

    /// Counts all calls against one set of limits. Default: one set for each pair of credential
    /// (`authorization` or `api-key`) and `model`.
    pub fn shared_key(mut self) -> Self {
        self.config.shared_key = true;
        self
    }

    /// Sets the cost of a throttled call. Default: [`Charge::Burn`].
    pub fn charge_throttled(mut self, charge: Charge) -> Self {
        self.config.charge = charge;
        self
    }

    /// Returns unused tokens of `max_tokens` at the end of a call. Default: they stay charged.
    ///
    /// The [`x-testing-output-tokens`](crate::OUTPUT_TOKENS_HEADER) header sets the tokens used.
    pub fn refund_unused_tokens(mut self) -> Self {
        self.config.payment = Payment::Refund;
        self
    }

    /// Charges the prompt on arrival and the output at the end of a call. Default: prompt and
    /// `max_tokens`, on arrival.
    ///
    /// The bucket of tokens can be in debt after a call. The
    /// [`x-testing-output-tokens`](crate::OUTPUT_TOKENS_HEADER) header sets the tokens used.
    pub fn post_paid(mut self) -> Self {
        self.config.payment = Payment::Post;
        self
    }

    /// Sets which responses have rate headers. Default: [`RateHeaders::All`].
    pub fn rate_headers(mut self, on: RateHeaders) -> Self {
        self.config.rate_headers = on;
        self
    }

    /// Rounds the `reset` times in rate headers up to whole seconds. Default: milliseconds.
    pub fn whole_second_resets(mut self) -> Self {
        self.config.whole_second_resets = true;
        self
    }

    /// Sets where a 429 states its delay. Default: [`Hints::Both`].
    pub fn hints(mut self, hints: Hints) -> Self {
        self.config.hints = hints;
        self
    }

    /// Sets the unit of the delay in a 429. Default: [`HintUnit::Milliseconds`].
    pub fn hint_unit(mut self, unit: HintUnit) -> Self {
        self.config.hint_unit = unit;
        self
    }

    /// Sets whether a 429 by the concurrency limit states a delay of
    /// [one second](crate::CONCURRENCY_HINT). Default: true.
    pub fn hint_concurrency(mut self, hint: bool) -> Self {
        self.config.no_concurrency_hint = !hint;
        self
    }

    /// Sets the message of 429s. Default: [`Wording::OpenAi`].
    pub fn wording(mut self, wording: Wording) -> Self {
        self.config.wording = wording;
        self
    }

    /// Sets the network latency. Default: zero.
    ///
    /// tokio's timers have a resolution of 1 ms, so a response can arrive up to 1 ms late.
    pub fn latency(mut self, latency: Latency) -> Self {
        self.config.latency = latency;
        self
    }

    /// Sets the service time of a call. Default: zero.
    pub fn service_time(mut self, time: ServiceTime) -> Self {
        self.config.service = time;
        self
    }

    /// Sets the form of successful responses. Default: [`Answer::AsAsked`].
    pub fn answer_with(mut self, answer: Answer) -> Self {
        self.config.answer = answer;
        self
    }

    /// Sets the timing of streamed responses. Default: [`DEFAULT_EVENTS`], at once.
    ///
    /// The head is sent after `first_after`. The events follow at equal intervals until the end of the
    /// service time, then `[DONE]`. The head is never sent before `first_after`, even if the service
    /// time is shorter.
    pub fn streaming(mut self, events: usize, first_after: Duration) -> Self {
        self.config.events = events;
        self.config.first_after = first_after;
        self
    }

    /// Ends streamed responses after `after_events` events with an `error` event that contains `json`.
    /// Default: no error.
    ///
    /// The status is 200. The call is no longer in flight after the error.
    pub fn error_in_stream(mut self, after_events: usize, json: impl Into<String>) -> Self {
        self.config.stream_error = Some((after_events, json.into()));
        self
    }

    /// Sets the seed of all random values. Default: 0.
    ///
    /// The same seed gives the same results for the same calls at the same times.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// Builds the provider. It needs no runtime.
    #[must_use]
    pub fn build(self) -> Provider {
        Provider::new(self.config)
    }
}
