//! [`Limit`]: the capacity and the refill rate of a rate limit, and the number in its headers.

use std::time::Duration;

/// Maximum size of a limit. Sums of larger floating-point numbers are not exact.
const LARGEST: f64 = 1e15;

/// A rate limit on requests or on tokens.
///
/// A limit is a bucket. By default it refills continuously and starts full; see
/// [`fixed_window`](Self::fixed_window) and [`starting_at`](Self::starting_at).
///
/// ```
/// use std::time::Duration;
/// use tower_429_testing::Limit;
///
/// let minute = Limit::per_minute(500);
/// // The same rate, enforced per second. The headers report 500.
/// let second = minute.capacity(500.0 / 60.0).shown_as(500);
/// let day = Limit::per(10_000, Duration::from_secs(86_400)).fixed_window();
/// # let _ = (second, day);
/// ```
///
/// Negative values and NaN count as 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    pub(crate) capacity: f64,
    /// Units per second.
    pub(crate) refill: f64,
    pub(crate) start: Option<f64>,
    pub(crate) shown: Option<f64>,
    pub(crate) fixed: bool,
}

impl Limit {
    /// Creates a limit with a capacity and a refill rate, in units and units per second.
    #[must_use]
    pub fn new(capacity: impl Into<f64>, refill_per_second: impl Into<f64>) -> Self {
        Self {
            capacity: sane(capacity.into()),
            refill: sane(refill_per_second.into()),
            start: None,
            shown: None,
            fixed: false,
        }
    }

    /// Creates a limit of `units` per minute. The capacity is `units`.
    #[must_use]
    pub fn per_minute(units: impl Into<f64>) -> Self {
        Self::per(units, Duration::from_secs(60))
    }

    /// Creates a limit of `units` per `period`. The capacity is `units`.
    ///
    /// A period of zero counts as one millisecond.
    #[must_use]
    pub fn per(units: impl Into<f64>, period: Duration) -> Self {
        let units = units.into();
        Self::new(units, units / period.as_secs_f64().max(0.001))
    }

    /// Sets the capacity and keeps the rate. Default: the units of one period.
    ///
    /// A small capacity models a server that enforces its limit over a shorter time than it reports. A
    /// limit on requests with a capacity below 1 accepts no call.
    #[must_use]
    pub fn capacity(mut self, units: impl Into<f64>) -> Self {
        self.capacity = sane(units.into());
        self
    }

    /// Sets the units at the start, for a key that was in use before. Default: full.
    ///
    /// The value may be negative.
    #[must_use]
    pub fn starting_at(mut self, units: impl Into<f64>) -> Self {
        let units = units.into();
        self.start = Some(if units < 0.0 { -sane(-units) } else { sane(units) });
        self
    }

    /// Sets the number in the `x-ratelimit-limit-*` header and in messages. Default: the capacity.
    ///
    /// The `remaining` and `reset` headers still report the bucket.
    #[must_use]
    pub fn shown_as(mut self, units: impl Into<f64>) -> Self {
        self.shown = Some(sane(units.into()));
        self
    }

    /// Refills the bucket only at the end of each window, all at once. Default: a continuous refill.
    ///
    /// A window lasts capacity ÷ refill rate, which is one minute for [`per_minute`](Self::per_minute).
    /// The first window starts with the key's first request. The `reset` header is the time until the
    /// end of the window.
    #[must_use]
    pub fn fixed_window(mut self) -> Self {
        self.fixed = true;
        self
    }

    /// Multiplies capacity and rate by `factor`.
    pub(crate) fn scaled(mut self, factor: f64) -> Self {
        self.capacity *= factor;
        self.refill *= factor;
        self.shown = self.shown.map(|shown| shown * factor);
        self.start = self.start.map(|start| start.min(self.capacity));
        self
    }
}

/// Clamps `value` to 0 and [`LARGEST`]. NaN becomes 0.
fn sane(value: f64) -> f64 {
    if value > 0.0 { value.min(LARGEST) } else { 0.0 }
}
