//! Arithmetic on instants and seconds that does not overflow for any value a server sends.

use std::time::Duration;

use tokio::time::Instant;

/// The longest single wait: one day. A call that waits for so long is decided again afterwards.
pub(crate) const LONGEST: Duration = Duration::from_secs(86_400);

/// A duration that exceeds any run of a process and can be added to any instant: 30 years.
pub(crate) const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Returns `now + time`, with `time` limited to [`LONGEST`].
pub(crate) fn add(now: Instant, time: Duration) -> Instant {
    now + time.min(LONGEST)
}

/// Converts seconds to a duration between zero and [`LONGEST`]. NaN becomes zero.
pub(crate) fn secs(secs: f64) -> Duration {
    if secs.is_nan() || secs <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(secs).map_or(LONGEST, |time| time.min(LONGEST))
}

/// Converts a duration to seconds. It multiplies, because `as_secs_f64` divides and several conversions are needed per
/// call.
pub(crate) fn in_secs(time: Duration) -> f64 {
    time.as_secs() as f64 + f64::from(time.subsec_nanos()) * 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_of_any_kind_become_a_duration_of_at_most_a_day() {
        assert_eq!(secs(1.5), Duration::from_millis(1500));
        for none in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(secs(none), Duration::ZERO);
        }
        for long in [1e9, 1e300, f64::INFINITY] {
            assert_eq!(secs(long), LONGEST);
        }
    }
}
