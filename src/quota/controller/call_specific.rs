//! 429s that concern one call alone: other calls of the key, sent later, succeed.
//!
//! A request that can never fit may be throttled in the words of a rate limit. Callers of such requests must not hold back
//! the others of their key. A 429 is *contradicted* when calls succeed that were sent after this call's last 429, or
//! after the one before if it was throttled in between, too: successes take longer than 429s. A contradicted 429 is its
//! call's own affair, unless that has not happened of late. A first 429 is its call's own affair when most throttled calls
//! of late turned out to be so, and successes go on. Many 429s in a row are nobody's own affair, unless successes go on:
//! several callers of such requests together are throttled more often than the others succeed.

use std::time::Duration;

use tokio::time::Instant;

/// How much one throttled call's next answer weighs against all before.
const WEIGHT: f64 = 0.2;
/// From this share on, a contradicted 429 is taken for its call's own affair: after one that was.
const SOME: f64 = 0.15;
/// From this share on, first 429s are taken for their calls' own affair.
const MOST: f64 = 0.5;
/// So many 429s in a row, without a success in between, may be their calls' own affair; more if successes go on.
const FEW: u32 = 3;
/// Successes go on when a call has succeeded that was sent so many times the usual answer's time ago, or later ...
const FLOWING: u32 = 2;
/// ... or this long ago: 1 s.
const FLOWING_MIN: Duration = Duration::from_secs(1);

/// A call's 429s so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ThrottleHistory {
    pub(crate) count: u32,
    /// The last call of the key that had been sent when the latest 429 came.
    pub(crate) last_sent: u64,
    /// The same for the 429 before that, or for this one if it is the first.
    before: u64,
}

impl ThrottleHistory {
    /// One more, when the last call sent was this one.
    pub(super) fn add(&mut self, last_sent: u64) {
        self.before = if self.count > 0 { self.last_sent } else { last_sent };
        self.count = self.count.saturating_add(1);
        self.last_sent = last_sent;
    }
}

#[derive(Debug, Default)]
pub(super) struct CallSpecific {
    /// The latest dispatch that has succeeded, and when it was sent.
    success: Option<(u64, Instant)>,
    /// How long answers take, on average.
    took: Duration,
    /// 429s since the last success.
    in_a_row: u32,
    /// The latest success that has contradicted a 429.
    contradicted_by: u64,
    /// The share of throttled calls whose next answer showed that the 429 was their own affair.
    share: f64,
}

impl CallSpecific {
    /// A call succeeded that was sent at this moment.
    pub(super) fn succeeded(&mut self, now: Instant, seq: u64, sent: Instant, before: ThrottleHistory) {
        let took = now.saturating_duration_since(sent);
        self.took = if self.success.is_none() { took } else { self.took.mul_f64(1.0 - WEIGHT) + took.mul_f64(WEIGHT) };
        if self.success.is_none_or(|(latest, _)| seq > latest) {
            self.success = Some((seq, sent));
        }
        self.in_a_row = 0;
        if before.count > 0 {
            self.saw(false);
        }
    }

    /// A call was throttled. Whether that is its own affair.
    pub(super) fn throttled(&mut self, now: Instant, before: ThrottleHistory) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        let Some((latest, sent)) = self.success else { return false };
        let flowing = sent + FLOWING_MIN.max(self.took * FLOWING) >= now;
        if self.in_a_row > FEW && !flowing {
            return false;
        }
        let contradicted = before.count > 0 && latest > before.before;
        let known = self.share >= SOME;
        if contradicted && latest > self.contradicted_by {
            self.contradicted_by = latest;
            self.saw(true);
        }
        if before.count > 0 {
            return contradicted && known;
        }
        self.are_most() && flowing
    }

    /// Whether most 429s of late were their calls' own affair.
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

    /// A call that was throttled once, when call `last_sent` was the last one sent.
    fn once(last_sent: u64) -> ThrottleHistory {
        let mut throttles = ThrottleHistory::default();
        throttles.add(last_sent);
        throttles
    }

    /// After so many calls whose 429 was contradicted by a success of its own, and a success of call 101.
    fn after(contradictions: u64) -> (Instant, CallSpecific) {
        let (now, mut calls) = (Instant::now(), CallSpecific::default());
        for seq in 101 - contradictions..=100 {
            calls.succeeded(now, seq, now, ThrottleHistory::default());
            calls.throttled(now, once(seq - 1));
        }
        calls.succeeded(now, 101, now, ThrottleHistory::default());
        (now, calls)
    }

    #[test]
    fn a_further_429_is_a_calls_own_affair_if_calls_sent_after_the_last_one_have_succeeded() {
        for (contradictions, expected) in [(0, false), (1, true), (10, true)] {
            let (now, mut calls) = after(contradictions);
            assert_eq!(calls.throttled(now, once(100)), expected, "call 101 was sent after it and has succeeded");
            let (now, mut calls) = after(contradictions);
            assert!(!calls.throttled(now, once(101)), "no call that was sent after it has succeeded");
        }
    }

    #[test]
    fn a_success_may_come_after_one_more_429() {
        let (now, mut calls) = after(3);
        let mut throttles = once(100);
        throttles.add(102);
        assert!(calls.throttled(now, throttles), "call 101 was sent between the two");
        throttles.add(103);
        assert!(!calls.throttled(now, throttles));
    }

    #[test]
    fn a_first_429_is_a_calls_own_affair_while_most_are_and_others_succeed() {
        for (contradictions, wait, expected) in [(3, 0, false), (4, 0, true), (4, 1, true), (4, 2, false)] {
            let (now, mut calls) = after(contradictions);
            let own = calls.throttled(now + wait * SECOND, ThrottleHistory::default());
            assert_eq!(own, expected, "{contradictions} contradictions, {wait} s after the last success");
        }
    }

    #[test]
    fn throttled_calls_that_succeed_when_sent_again_show_that_the_limit_is_real() {
        let (now, mut calls) = after(10);
        (110..117).for_each(|seq| calls.succeeded(now, seq, now, once(100)));
        assert!(!calls.throttled(now, ThrottleHistory::default()));
    }

    #[test]
    fn many_429s_in_a_row_are_nobodys_own_affair_unless_successes_go_on() {
        for (wait, expected) in [(0, [true; 5]), (2, [true, true, true, false, false])] {
            let (now, mut calls) = after(10);
            let own = [(); 5].map(|()| calls.throttled(now + wait * SECOND, once(100)));
            assert_eq!(own, expected, "{wait} s after the last success");
        }
    }

    #[test]
    fn before_any_success_no_429_is_a_calls_own_affair() {
        let (now, mut calls) = (Instant::now(), CallSpecific::default());
        assert!((0..20).all(|_| !calls.throttled(now, once(0))));
    }
}
