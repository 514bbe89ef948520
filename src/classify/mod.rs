//! What did the server say? Pure functions from an error answer's status, headers and body to a [`Verdict`].
//!
//! Nothing in here waits, reads a clock or keeps state: the same bytes give the same verdict. Every function is total,
//! whatever the server sent, and its work is bounded by the 64 KiB of body that the retry layer reads.

mod body;
mod codes;
mod headers;
mod hint;
mod kind;
mod message;
mod parse;
mod rules;

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

pub use headers::{BucketSnapshot, MAX_DIMENSIONS, RateLimitSnapshot};
pub use hint::{retry_after, should_retry};

pub use crate::vocabulary::{Dimension, Evidence, HintSource, Kind, Scope, Unit};

use crate::dialect::Dialect;

/// What the server said, as far as it can be told from one answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// The kind of answer.
    pub kind: Kind,
    /// The limit that was met, when the answer names it.
    pub scope: Option<Scope>,
    /// When to come back, counted from the answer's arrival; as said, uncapped.
    pub retry_after: Option<Duration>,
    /// Where [`retry_after`](Self::retry_after) comes from.
    pub source: Option<HintSource>,
    /// The limit's size.
    pub limit: Option<f64>,
    /// How much of it was in use.
    pub used: Option<f64>,
    /// How much this request asked for: the server's own price.
    pub requested: Option<f64>,
    /// The model that the answer names.
    pub model: Option<String>,
    /// Whether the answer names the limit it speaks of.
    pub evidence: Evidence,
    /// With [`Kind::QuotaExhausted`]: it is the whole account's plan, budget or balance, so that no other model of it will
    /// do. If not, it may be that of one model.
    pub account: bool,
    /// With [`Kind::Overloaded`]: a failure behind the server is the only cause it names (a 429 of type `server_error` or
    /// `api_error`). It tells nothing of this key's limits, so that no rate may be learned from it.
    pub upstream_failure: bool,
}

impl Verdict {
    /// Classifies an answer, by the shape of its error answer: no provider need be known.
    ///
    /// `body` is what was read of the body, empty if nothing was; more than 64 KiB of it is not looked at. The wall clock
    /// is read only when the answer states a date and has no `date` header to count it from.
    pub fn of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        rules::verdict(&Dialect::GENERIC, status, headers, body, &wall_clock)
    }

    /// The same for the provider behind a key.
    pub(crate) fn in_dialect(dialect: &Dialect, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        rules::verdict(dialect, status, headers, body, &wall_clock)
    }

    /// The same with `now` in place of the wall clock: a pure function.
    pub fn of_at(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Self {
        rules::verdict(&Dialect::GENERIC, status, headers, body, &|| now)
    }

    /// The same for a known provider, whose own meaning of a code then counts before all others'.
    pub fn of_dialect(
        dialect: &Dialect,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Self {
        rules::verdict(dialect, status, headers, body, &|| now)
    }

    /// A verdict that knows no more than its kind; a throttling one is [`Evidence::Bare`] until something is added.
    pub const fn new(kind: Kind) -> Self {
        let evidence = match kind {
            Kind::RateLimited | Kind::Concurrency | Kind::Overloaded => Evidence::Bare,
            _ => Evidence::Named,
        };
        Self {
            kind,
            scope: None,
            retry_after: None,
            source: None,
            limit: None,
            used: None,
            requested: None,
            model: None,
            evidence,
            account: false,
            upstream_failure: false,
        }
    }

    /// Names the limit that was met.
    #[must_use]
    pub const fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self.with_evidence(Evidence::Named)
    }

    /// States when to come back.
    #[must_use]
    pub const fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self.source = Some(HintSource::Stated);
        self.with_evidence(Evidence::Named)
    }

    /// Gives the reset of an exhausted bucket in place of a stated delay.
    #[must_use]
    pub const fn with_reset(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self.source = Some(HintSource::Reset);
        self.with_evidence(Evidence::Named)
    }

    /// Gives the limit's size.
    #[must_use]
    pub const fn with_limit(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self.with_evidence(Evidence::Named)
    }

    /// Gives how much of the limit was in use.
    #[must_use]
    pub const fn with_used(mut self, used: f64) -> Self {
        self.used = Some(used);
        self.with_evidence(Evidence::Named)
    }

    /// Gives the server's own price of the request.
    #[must_use]
    pub const fn with_requested(mut self, requested: f64) -> Self {
        self.requested = Some(requested);
        self.with_evidence(Evidence::Named)
    }

    /// Names the model; this says nothing of the limit.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Says that a quota that is used up is the whole account's.
    #[must_use]
    pub const fn with_account(mut self) -> Self {
        self.account = true;
        self
    }

    /// Says that a failure behind the server is the only cause.
    #[must_use]
    pub const fn with_upstream_failure(mut self) -> Self {
        self.upstream_failure = true;
        self
    }

    /// Sets the evidence, after all else.
    #[must_use]
    pub const fn with_evidence(mut self, evidence: Evidence) -> Self {
        self.evidence = evidence;
        self
    }

    /// When to come back as the server stated it, not as the reset of a bucket suggests.
    pub fn stated(&self) -> Option<Duration> {
        self.retry_after.filter(|_| self.source == Some(HintSource::Stated))
    }

    /// Whether waiting or sending less at once cures it.
    pub const fn is_throttling(&self) -> bool {
        matches!(self.kind, Kind::RateLimited | Kind::Concurrency | Kind::Overloaded)
    }
}

/// Whether the body of an answer with this status tells more than the status does, so that it is worth reading.
pub fn reads_body(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        400..=404 | 412 | 413 | 422 | 429 | 498 | 500 | 502..=504 | 520..=524 | 529
    )
}

/// The one place where the wall clock is read.
#[allow(clippy::disallowed_methods, reason = "absolute dates from a server without a `date` header")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
