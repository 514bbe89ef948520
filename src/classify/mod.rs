//! Classifies a response by its status, headers and body into a [`Verdict`].
//!
//! The functions here do not wait and keep no state. The same bytes give the same verdict, except that [`Verdict::of`]
//! reads the wall clock for a date without a `date` header. The functions accept any input. They read at most 64 KiB of
//! the body.

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

/// The classification of one response.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// The kind of the response.
    pub kind: Kind,
    /// The limit that was exceeded, if the response names it.
    pub scope: Option<Scope>,
    /// The delay before a retry, from the arrival of the response. It is not capped.
    pub retry_after: Option<Duration>,
    /// The source of [`retry_after`](Self::retry_after).
    pub source: Option<HintSource>,
    /// The size of the limit.
    pub limit: Option<f64>,
    /// How much of the limit was in use.
    pub used: Option<f64>,
    /// The cost of this request as the server counts it.
    pub requested: Option<f64>,
    /// The model, if the response names it.
    pub model: Option<String>,
    /// Whether the response names the limit that was exceeded.
    pub evidence: Evidence,
    /// Whether the exhausted plan, budget or balance belongs to the whole account, so that other models fail too. It is
    /// set only with [`Kind::QuotaExhausted`]. If it is false, the quota may belong to one model.
    pub account: bool,
    /// Whether the response names a failure behind the server as its only cause: a 429 of type `server_error` or
    /// `api_error`. It is set only with [`Kind::Overloaded`]. Such a response gives no information about the key's
    /// limits, so no rate is learned from it.
    pub upstream_failure: bool,
}

impl Verdict {
    /// Classifies a response without knowledge of its provider.
    ///
    /// `body` is the part of the body that was read, or empty. At most 64 KiB of it are read. The wall clock is read
    /// only if the response states a date and has no `date` header.
    pub fn of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        rules::verdict(&Dialect::GENERIC, status, headers, body, &wall_clock)
    }

    /// Classifies a response of the provider behind a key.
    pub(crate) fn in_dialect(dialect: &Dialect, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        rules::verdict(dialect, status, headers, body, &wall_clock)
    }

    /// Classifies a response like [`of`](Self::of), with `now` in place of the wall clock. It is a pure function.
    pub fn of_at(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Self {
        rules::verdict(&Dialect::GENERIC, status, headers, body, &|| now)
    }

    /// Classifies a response of a known provider. The provider's own meaning of an error code takes precedence.
    pub fn of_dialect(
        dialect: &Dialect,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Self {
        rules::verdict(dialect, status, headers, body, &|| now)
    }

    /// Creates a verdict that has only a kind.
    ///
    /// A throttling verdict is [`Evidence::Bare`] until a setter adds information about the limit.
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

    /// Sets the limit that was exceeded.
    #[must_use]
    pub const fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self.with_evidence(Evidence::Named)
    }

    /// Sets the delay that the server states.
    #[must_use]
    pub const fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self.source = Some(HintSource::Stated);
        self.with_evidence(Evidence::Named)
    }

    /// Sets the delay to the reset of an exhausted bucket.
    #[must_use]
    pub const fn with_reset(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self.source = Some(HintSource::Reset);
        self.with_evidence(Evidence::Named)
    }

    /// Sets the size of the limit.
    #[must_use]
    pub const fn with_limit(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self.with_evidence(Evidence::Named)
    }

    /// Sets how much of the limit was in use.
    #[must_use]
    pub const fn with_used(mut self, used: f64) -> Self {
        self.used = Some(used);
        self.with_evidence(Evidence::Named)
    }

    /// Sets the cost of the request as the server counts it.
    #[must_use]
    pub const fn with_requested(mut self, requested: f64) -> Self {
        self.requested = Some(requested);
        self.with_evidence(Evidence::Named)
    }

    /// Sets the model. The evidence does not change.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Marks the exhausted quota as that of the whole account.
    #[must_use]
    pub const fn with_account(mut self) -> Self {
        self.account = true;
        self
    }

    /// Marks a failure behind the server as the only cause.
    #[must_use]
    pub const fn with_upstream_failure(mut self) -> Self {
        self.upstream_failure = true;
        self
    }

    /// Sets the evidence. Call it last, because other setters overwrite it.
    #[must_use]
    pub const fn with_evidence(mut self, evidence: Evidence) -> Self {
        self.evidence = evidence;
        self
    }

    /// Returns the delay that the server states. The reset of a bucket does not count.
    pub fn stated(&self) -> Option<Duration> {
        self.retry_after.filter(|_| self.source == Some(HintSource::Stated))
    }

    /// Returns true if a retry can succeed after a delay or with fewer requests in flight.
    pub const fn is_throttling(&self) -> bool {
        matches!(self.kind, Kind::RateLimited | Kind::Concurrency | Kind::Overloaded)
    }
}

/// Returns true if a response with this status is classified by its body, too.
pub fn reads_body(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        400..=404 | 412 | 413 | 422 | 429 | 498 | 500 | 502..=504 | 520..=524 | 529
    )
}

/// Reads the wall clock. No other function of the crate does.
#[allow(clippy::disallowed_methods, reason = "absolute dates from a server without a `date` header")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
