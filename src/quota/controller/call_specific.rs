//! Tells 429s that concern one call alone from 429s that concern the key.
//!
//! A server may throttle a request that never fits with the words of a rate limit. Such calls must not hold back the other
//! calls of their key. The sign is that other calls, sent later, succeed:
//!
//! * A 429 is *contradicted* if calls succeed that were sent after this call's last 429. Successes take longer than 429s, so
//!   after two 429s a success of a call sent after the first of them is enough.
//! * A contradicted 429 concerns its call alone, if contradicted 429s were seen of late.
//! * A first 429 concerns its call alone, if most throttled calls of late were contradicted and successes go on.
//! * After several 429s in a row without a success, a 429 concerns the key, unless successes go on.
//!
//! *Successes go on* if a call succeeded that was sent lately. Several callers of such requests together are throttled more
//! often than the others succeed.

use std::time::Duration;

use tokio::time::Instant;

/// What the next response to one throttled call weighs against all before.
const WEIGHT: f64 = 0.2;
/// From this share of contradicted 429s on, a contradicted 429 concerns its call alone. One is enough.
const SOME: f64 = 0.15;
/// From this share of contradicted 429s on, first 429s concern their calls alone.
const MOST: f64 = 0.5;
/// So many 429s in a row may each concern their call alone. More may if successes go on.
const FEW: u32 = 3;
/// Successes go on if one came of a call that was sent at most this many average response times ago ...
const FLOWING: u32 = 2;
/// ... or at most this long ago: 1 s.
const FLOWING_MIN: Duration = Duration::from_secs(1);

/// The 429s of one call so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ThrottleHistory {
    pub(crate) count: u32,
    /// The number of the last call of the key that had been sent when the latest 429 came.
    pub(crate) last_sent: u64,
    /// The same for the 429 before, or for the latest if it is the only one.
    before: u64,
}

impl ThrottleHistory {
    /// Adds a 429. `last_sent` is the number of the last call sent.
    pub(super) fn add(&mut self, last_sent: u64) {
        self.before = if self.count > 0 { self.last_sent } else { last_sent };
        self.count = self.count.saturating_add(1);
        self.last_sent = last_sent;
    }
}

/// What is believed of a key's 429s: how many of them concern their calls alone.
#[derive(Debug, Default)]
pub(super) struct CallSpecific {
    /// The last sent call that has succeeded, and when it was sent.
    success: Option<(u64, Instant)>,
    /// How long successes take, on average.
    took: Duration,
    /// 429s since the last success.
    in_a_row: u32,
    /// The last success that has contradicted a 429. It counts once.
    contradicted_by: u64,
    /// The share of throttled calls whose next response showed that their 429 concerned them alone.
    share: f64,
}

impl CallSpecific {
    /// A call succeeded. `sent` is when it was sent, `before` are its own 429s.
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

    /// A call was throttled. Returns whether that concerns this call alone.
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

    /// Whether most 429s of late concerned their calls alone.
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
