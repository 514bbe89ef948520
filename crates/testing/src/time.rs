//! Seconds as numbers, spans of time and moments, without a way to panic.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// What stands for "never" where a time is asked for: 366 days.
pub const LONGEST_WAIT: Duration = Duration::from_secs(366 * 86_400);

/// This many seconds, rounded up to the next nanosecond: 0 for negative numbers and NaN, at most
/// [`LONGEST_WAIT`].
pub(crate) fn seconds(seconds: f64) -> Duration {
    if seconds.is_nan() || seconds <= 0.0 {
        return Duration::ZERO;
    }
    if seconds >= LONGEST_WAIT.as_secs_f64() {
        return LONGEST_WAIT;
    }
    Duration::from_nanos((seconds * 1e9).ceil() as u64)
}

/// `span` rounded up to a whole number of `unit`s. A remainder of one nanosecond is what floating
/// point left behind, and dropped.
pub(crate) fn round_up(span: Duration, unit: Duration) -> Duration {
    let unit = unit.as_nanos().max(1);
    let units = span.as_nanos().saturating_sub(1).div_ceil(unit);
    Duration::from_nanos(u64::try_from(units * unit).unwrap_or(u64::MAX))
}

/// The moment `span` after `now`; a span too long to add counts as [`LONGEST_WAIT`].
pub(crate) fn later(now: Instant, span: Duration) -> Instant {
    now + span.min(LONGEST_WAIT)
}

/// A timer that is only armed when there is something to wait for.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready at `deadline`; at once, without touching the runtime, if that has passed.
    pub(crate) fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if Instant::now() < deadline {
            let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        self.0 = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_no_time_become_one() {
        assert_eq!(seconds(f64::NAN), Duration::ZERO);
        assert_eq!(seconds(-1.0), Duration::ZERO);
        assert_eq!(seconds(f64::INFINITY), LONGEST_WAIT);
        assert_eq!(seconds(1.5), Duration::from_millis(1_500));
    }

    #[test]
    fn rounding_up_forgives_what_floating_point_left() {
        let ms = Duration::from_millis(1);
        assert_eq!(round_up(Duration::from_nanos(120_000_001), ms), 120 * ms);
        assert_eq!(round_up(Duration::from_nanos(120_000_002), ms), 121 * ms);
        assert_eq!(round_up(Duration::MAX, ms), Duration::from_nanos(u64::MAX));
    }
}
