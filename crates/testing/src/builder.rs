//! The provider's knobs and their defaults.

use std::time::Duration;

use crate::knobs::{Answer, Charge, HintUnit, Hints, Payment, RateHeaders, Wording};
use crate::{Latency, Limit, Provider, ServiceTime};

/// The events of a streamed answer, unless [`Builder::streaming`] says otherwise.
pub const DEFAULT_EVENTS: usize = 4;

/// More foreign calls a second than this are not played.
pub const MOST_FOREIGN_PER_SECOND: f64 = 10_000.0;

/// Everything a provider was told.
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

/// Sets up a [`Provider`]; made by [`Provider::builder`].
///
/// Without any setting, a provider has no limits and answers each call at once.
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
///     .charge_refused(Charge::Debt(0.25))
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
    /// A call that costs more than the limit's capacity is accepted when the bucket is full, and
    /// leaves it in debt.
    pub fn tokens(mut self, limit: Limit) -> Self {
        self.config.tokens = Some(limit);
        self
    }

    /// Limits the requests of each key once more, over a shorter time, with no header that shows it.
    /// Default: none.
    pub fn hidden(mut self, limit: Limit) -> Self {
        self.config.hidden = Some(limit);
        self
    }

    /// Serves no more than this many calls of a key at once. Default: any number.
    pub fn at_once(mut self, calls: usize) -> Self {
        self.config.at_once = Some(calls);
        self
    }

    /// Refuses with `insufficient_quota` once a key had this many calls accepted. Default: never.
    ///
    /// Such a 429 comes before all other checks and is charged to nobody.
    pub fn quota_of(mut self, calls: usize) -> Self {
        self.config.quota = Some(calls);
        self
    }

    /// Lets other tenants use each key too, at random moments: so many calls a second on average
    /// (at most [`MOST_FOREIGN_PER_SECOND`]) of so many tokens each. Default: none.
    ///
    /// They begin with the key's first request. One that meets an empty limit goes away for free.
    pub fn foreign(mut self, calls_per_second: f64, tokens_each: f64) -> Self {
        self.config.foreign = (calls_per_second > 0.0).then_some(Foreign {
            per_second: calls_per_second.min(MOST_FOREIGN_PER_SECOND),
            tokens: tokens_each.max(0.0),
        });
        self
    }

    /// Counts all calls against one set of limits, whatever their key and model. Default: one set
    /// for each pair of credential (`authorization` or `api-key`) and `model`.
    pub fn shared_key(mut self) -> Self {
        self.config.shared_key = true;
        self
    }

    /// Sets what a throttled call costs. Default: [`Charge::Burn`].
    pub fn charge_throttled(mut self, charge: Charge) -> Self {
        self.config.charge = charge;
        self
    }

    /// Gives back at the end of a call the tokens that were reserved by `max_tokens` and not used.
    /// Default: they stay spent.
    ///
    /// What was used is in the [`x-testing-output-tokens`](crate::OUTPUT_TOKENS_HEADER) header.
    pub fn refund_unused_tokens(mut self) -> Self {
        self.config.payment = Payment::Refund;
        self
    }

    /// Charges the prompt on arrival and the output at the end of a call, which may leave the
    /// tokens in debt. Default: prompt and `max_tokens`, on arrival.
    ///
    /// What was used is in the [`x-testing-output-tokens`](crate::OUTPUT_TOKENS_HEADER) header.
    pub fn post_paid(mut self) -> Self {
        self.config.payment = Payment::Post;
        self
    }

    /// Sets which answers carry rate headers. Default: [`RateHeaders::All`].
    pub fn rate_headers(mut self, on: RateHeaders) -> Self {
        self.config.rate_headers = on;
        self
    }

    /// Rounds the times to reset in rate headers up to whole seconds. Default: milliseconds.
    pub fn whole_second_resets(mut self) -> Self {
        self.config.whole_second_resets = true;
        self
    }

    /// Sets where a 429 says when to come back. Default: [`Hints::Both`].
    pub fn hints(mut self, hints: Hints) -> Self {
        self.config.hints = hints;
        self
    }

    /// Sets how exact hints are. Default: [`HintUnit::Milliseconds`].
    pub fn hint_unit(mut self, unit: HintUnit) -> Self {
        self.config.hint_unit = unit;
        self
    }

    /// Sets whether a 429 by concurrency says to come back in
    /// [a second](crate::CONCURRENCY_HINT). Default: it does.
    pub fn hint_concurrency(mut self, hint: bool) -> Self {
        self.config.no_concurrency_hint = !hint;
        self
    }

    /// Sets what 429s say. Default: [`Wording::OpenAi`].
    pub fn wording(mut self, wording: Wording) -> Self {
        self.config.wording = wording;
        self
    }

    /// Sets how long messages are on their way. Default: no time.
    ///
    /// tokio's timers count milliseconds, so a client hears of a thing up to 1 ms late.
    pub fn latency(mut self, latency: Latency) -> Self {
        self.config.latency = latency;
        self
    }

    /// Sets how long a call is served. Default: no time.
    pub fn service_time(mut self, time: ServiceTime) -> Self {
        self.config.service = time;
        self
    }

    /// Sets the form of successful answers. Default: [`Answer::AsAsked`].
    pub fn answer_with(mut self, answer: Answer) -> Self {
        self.config.answer = answer;
        self
    }

    /// Sets the shape of streamed answers: the head comes after `first_after`, then so many events
    /// spread evenly up to the end of the service time, then `[DONE]`. Default:
    /// [`DEFAULT_EVENTS`], at once.
    ///
    /// A service time shorter than `first_after` does not make the head come sooner.
    pub fn streaming(mut self, events: usize, first_after: Duration) -> Self {
        self.config.events = events;
        self.config.first_after = first_after;
        self
    }

    /// Breaks streamed answers off after so many events with an `error` event that carries `json`.
    /// Default: they end well.
    ///
    /// The status is 200 by then, and the slot is free from the error on.
    pub fn error_in_stream(mut self, after_events: usize, json: impl Into<String>) -> Self {
        self.config.stream_error = Some((after_events, json.into()));
        self
    }

    /// Sets the seed of everything random. Default: 0.
    ///
    /// The same calls at the same times meet the same provider.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// Builds the provider; needs no runtime.
    #[must_use]
    pub fn build(self) -> Provider {
        Provider::new(self.config)
    }
}
