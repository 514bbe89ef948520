//! Refusals that concern one call alone: other calls of the key, sent later, succeed.
//!
//! A request that can never fit may be refused in the words of a rate limit. Callers of such requests must not hold back
//! the others of their key. A call that is refused again is its own affair when calls that were sent after its last attempt
//! have succeeded, unless that has never happened before. A first refusal is its call's own affair when most refused calls
//! of late turned out to be so, and calls that were sent a moment ago succeed.

use std::time::Duration;

use tokio::time::Instant;

/// How much one refused call's next answer weighs against all before.
const WEIGHT: f64 = 0.2;
/// From this share on, a call that is refused again is taken for its own affair: after one that was.
const SOME: f64 = 0.1;
/// From this share on, first refusals are taken for their calls' own affair.
const MOST: f64 = 0.5;
/// Successes go on when a call has succeeded that was sent so many times the usual answer's time ago, or later ...
const FLOWING: u32 = 2;
/// ... or this long ago: 1 s.
const FLOWING_MIN: Duration = Duration::from_secs(1);

/// A call's refusals so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Refusals {
    pub(crate) count: u32,
    /// The latest attempt that was refused, in the order in which calls of the key were sent.
    pub(crate) seq: u64,
}

#[derive(Debug, Default)]
pub(super) struct CallSpecific {
    /// The latest dispatch that has succeeded, and when it was sent.
    success: Option<(u64, Instant)>,
    /// How long answers take, on average.
    took: Duration,
    /// The share of refused calls whose next answer showed that the refusal was their own affair.
    share: f64,
}

impl CallSpecific {
    /// A call succeeded that was sent at this moment.
    pub(super) fn succeeded(&mut self, now: Instant, seq: u64, sent: Instant, before: Refusals) {
        let took = now.saturating_duration_since(sent);
        self.took = if self.success.is_none() { took } else { self.took.mul_f64(1.0 - WEIGHT) + took.mul_f64(WEIGHT) };
        if self.success.is_none_or(|(latest, _)| seq > latest) {
            self.success = Some((seq, sent));
        }
        if before.count > 0 {
            self.saw(false);
        }
    }

    /// A call was refused. Whether that is its own affair.
    pub(super) fn refused(&mut self, now: Instant, before: Refusals) -> bool {
        let Some((latest, sent)) = self.success else { return false };
        let contradicted = latest > before.seq;
        let known = self.share >= SOME;
        if before.count > 0 && contradicted {
            self.saw(true);
        }
        if before.count > 0 {
            return contradicted && known;
        }
        self.are_most() && sent + FLOWING_MIN.max(self.took * FLOWING) >= now
    }

    /// Whether most refused calls of late were refused for an affair of their own: what refusals taught is doubtful.
    pub(super) fn are_most(&self) -> bool {
        self.share >= MOST
    }

    fn saw(&mut self, own: bool) {
        self.share += WEIGHT * (f64::from(u8::from(own)) - self.share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn before(count: u32, seq: u64) -> Refusals {
        Refusals { count, seq }
    }

    #[test]
    fn a_further_refusal_is_a_calls_own_affair_after_one_that_was() {
        let (now, mut calls) = (Instant::now(), CallSpecific::default());
        calls.succeeded(now, 10, now, Refusals::default());
        assert!(!calls.refused(now, before(1, 5)), "it may be a passing limit");
        assert!(calls.refused(now, before(1, 5)), "a call sent after its last attempt has succeeded");
        assert!(!calls.refused(now, before(1, 10)), "none that was sent after it has");
    }

    #[test]
    fn a_first_refusal_is_a_calls_own_affair_only_while_others_succeed() {
        let (now, mut calls) = (Instant::now(), CallSpecific::default());
        calls.succeeded(now, 10, now, Refusals::default());
        (0..4).for_each(|_| drop(calls.refused(now, before(1, 5))));
        assert!(calls.refused(now + SECOND, Refusals::default()));
        assert!(!calls.refused(now + 2 * SECOND, Refusals::default()), "nothing sent in the last second has succeeded");
    }

    #[test]
    fn refused_calls_that_succeed_when_sent_again_show_that_the_limit_was_real() {
        let (now, mut calls) = (Instant::now(), CallSpecific::default());
        calls.succeeded(now, 10, now, Refusals::default());
        (0..4).for_each(|_| drop(calls.refused(now, before(1, 5))));
        (11..22).for_each(|seq| calls.succeeded(now, seq, now, before(1, 10)));
        assert!(!calls.refused(now, before(1, 5)));
    }

    #[test]
    fn before_any_success_no_refusal_is_a_calls_own_affair() {
        let (now, mut calls) = (Instant::now(), CallSpecific::default());
        assert!((0..20).all(|_| !calls.refused(now, before(3, 0))));
    }
}
