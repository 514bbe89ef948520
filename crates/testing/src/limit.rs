//! What one rate limit allows: how much at once, how fast it comes back, and what the headers say of it.

use std::time::Duration;

/// No limit is taken to be larger than this, so that sums of levels stay exact enough.
const LARGEST: f64 = 1e15;

/// A rate limit on requests or on tokens.
///
/// A limit is a bucket: a call takes from it, time gives back. By default it refills continuously
/// and starts full; see [`fixed_window`](Self::fixed_window) and [`starting_at`](Self::starting_at).
///
/// ```
/// use std::time::Duration;
/// use tower_429_testing::Limit;
///
/// let minute = Limit::per_minute(500);
/// // The same rate, enforced second by second; the headers still speak of 500.
/// let second = minute.capacity(500.0 / 60.0).shown_as(500);
/// let day = Limit::per(10_000, Duration::from_secs(86_400)).fixed_window();
/// # let _ = (second, day);
/// ```
///
/// Values that make no sense (negative, NaN) count as 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    pub(crate) capacity: f64,
    /// Units a second.
    pub(crate) refill: f64,
    pub(crate) start: Option<f64>,
    pub(crate) shown: Option<f64>,
    pub(crate) fixed: bool,
}

impl Limit {
    /// A limit of `capacity` units at once that gets back `refill_per_second` units a second.
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

    /// `units` a minute: as many at once, and a sixtieth of them back each second.
    #[must_use]
    pub fn per_minute(units: impl Into<f64>) -> Self {
        Self::per(units, Duration::from_secs(60))
    }

    /// `units` in each `period`: as many at once, and all of them back after one period.
    ///
    /// A period of zero counts as one millisecond.
    #[must_use]
    pub fn per(units: impl Into<f64>, period: Duration) -> Self {
        let units = units.into();
        Self::new(units, units / period.as_secs_f64().max(0.001))
    }

    /// Allows this many units at once, at the same rate. Default: the units of one period.
    ///
    /// A small capacity is a limit that the server enforces over a shorter time than the one it
    /// talks about. A request limit below 1 accepts nothing.
    #[must_use]
    pub fn capacity(mut self, units: impl Into<f64>) -> Self {
        self.capacity = sane(units.into());
        self
    }

    /// Starts with this many units, for example because the key was in use before. May be negative.
    /// Default: full.
    #[must_use]
    pub fn starting_at(mut self, units: impl Into<f64>) -> Self {
        let units = units.into();
        self.start = Some(if units < 0.0 { -sane(-units) } else { sane(units) });
        self
    }

    /// Says this number in the `x-ratelimit-limit-*` header and in messages. Default: the capacity.
    ///
    /// What remains and the time to reset are still those of the bucket.
    #[must_use]
    pub fn shown_as(mut self, units: impl Into<f64>) -> Self {
        self.shown = Some(sane(units.into()));
        self
    }

    /// Gives everything back at once at the end of each window, and nothing between. Default: refills
    /// continuously.
    ///
    /// A window lasts capacity ÷ refill, so a minute for [`per_minute`](Self::per_minute); the first
    /// one begins with the key's first request. The header's time to reset is then the time to the
    /// window's end.
    #[must_use]
    pub fn fixed_window(mut self) -> Self {
        self.fixed = true;
        self
    }

    /// The same limit, `factor` times as large and as fast.
    pub(crate) fn scaled(mut self, factor: f64) -> Self {
        self.capacity *= factor;
        self.refill *= factor;
        self.shown = self.shown.map(|shown| shown * factor);
        self.start = self.start.map(|start| start.min(self.capacity));
        self
    }
}

/// `value` within 0 and [`LARGEST`]; NaN is 0.
fn sane(value: f64) -> f64 {
    if value > 0.0 { value.min(LARGEST) } else { 0.0 }
}
