//! A rate learned from 429s, for limits that no header shows.
//!
//! A 429 sets the rate below what the server accepted in the last seconds. From there it rises along a cubic: it is back at
//! the accepted rate after [`RECOVERY`], stays near it for a while, and then rises faster and faster to find a higher limit.
//! All times are seconds of the controller's clock.

/// The part of the accepted rate at which calls go on after a 429.
const BETA: f64 = 0.7;
/// How long the rate takes to rise back to the accepted rate: 10 s.
const RECOVERY: f64 = 10.0;
/// How many counters of half a second each count the recent calls.
const COUNTERS: usize = 10;
/// The time that all counters cover: 5 s.
const SPAN: f64 = 5.0;
/// The accepted rate is measured over at least this time: 1 s.
const SPAN_MIN: f64 = 1.0;
/// A further 429 sets the rate to at most this many times what was accepted.
///
/// The rate may have risen far above what the callers use.
const ABOVE_ACCEPTED: f64 = 1.2;
/// The slowest rate that is learned: one call in 20 s.
const SLOWEST: f64 = 0.05;

/// A learned rate, and the counts that it is learned from.
#[derive(Debug, Default)]
pub(super) struct LearnedRate {
    /// The accepted rate in calls a second, and when the 429 came.
    learned: Option<(f64, f64)>,
    /// When the first call was sent.
    born: Option<f64>,
    /// Recent calls that were not throttled, by the half second in which they were sent.
    counters: [u16; COUNTERS],
    /// The half second that the newest counter stands for.
    newest: u64,
}

impl LearnedRate {
    /// Counts an admitted call.
    pub(super) fn sent(&mut self, now: f64) {
        self.born.get_or_insert(now);
        self.advance(now);
        let index = index(now);
        self.counters[index] = self.counters[index].saturating_add(1);
    }

    /// Uncounts a call that the server did not accept.
    pub(super) fn throttled(&mut self, now: f64, sent: f64) {
        self.advance(now);
        if half_second(sent) + COUNTERS as u64 > self.newest {
            let index = index(sent);
            self.counters[index] = self.counters[index].saturating_sub(1);
        }
    }

    /// Whether a rate is in force.
    pub(super) fn is_known(&self) -> bool {
        self.learned.is_some()
    }

    /// The rate in force, in calls a second.
    pub(super) fn rate(&self, now: f64) -> Option<f64> {
        let (measured, at) = self.learned?;
        let x = (now - at) / RECOVERY - 1.0;
        Some(measured * (1.0 + (1.0 - BETA) * x * x * x))
    }

    /// Learns from a 429. Returns false if no recent call was accepted, so that there is no rate to learn.
    pub(super) fn learn(&mut self, now: f64) -> bool {
        self.advance(now);
        let recent: u32 = self.counters.iter().map(|count| u32::from(*count)).sum();
        if recent == 0 {
            return false;
        }
        let span = SPAN.min(f64::max(SPAN_MIN, now - self.born.unwrap_or(now)));
        let accepted = f64::from(recent) / span;
        let measured = self.rate(now).map_or(accepted, |rate| rate.min(ABOVE_ACCEPTED * accepted));
        self.learned = Some((measured.max(SLOWEST), now));
        true
    }

    /// Removes the rate. The counts stay.
    pub(super) fn forget(&mut self) {
        self.learned = None;
    }

    /// Resets the rate after an idle time.
    pub(super) fn rested(&mut self) {
        *self = Self { newest: self.newest, ..Self::default() };
    }

    /// Empties the counters of the half seconds that have begun since the newest.
    fn advance(&mut self, now: f64) {
        let current = half_second(now);
        let passed = current.saturating_sub(self.newest).min(COUNTERS as u64);
        for step in 1..=passed {
            self.counters[((self.newest + step) % COUNTERS as u64) as usize] = 0;
        }
        if passed == COUNTERS as u64 {
            self.counters = [0; COUNTERS];
        }
        self.newest = self.newest.max(current);
    }
}

/// Which counter a time belongs to.
fn index(at: f64) -> usize {
    (half_second(at) % COUNTERS as u64) as usize
}

fn half_second(at: f64) -> u64 {
    (at * 2.0) as u64 // saturates: never negative, never too large
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_changes_the_rate_as_the_table_says() {
        type Event = fn(&mut LearnedRate);
        // Before each event, ten calls a second went for ten seconds.
        #[rustfmt::skip]
        let rows: [(&str, Event, f64, Option<f64>); 9] = [
            // event                                                             at, calls a second
            ("no 429 came", |_| {},                                             9.9, None),
            ("a 429: seven tenths of what was accepted", |r| _ = r.learn(9.9),  9.9, Some(7.0)),
            ("five seconds later it is nearly back", |r| _ = r.learn(9.9),     14.9, Some(9.625)),
            ("ten seconds later it is back", |r| _ = r.learn(9.9),             19.9, Some(10.0)),
            ("twenty seconds later it tries more", |r| _ = r.learn(9.9),       29.9, Some(13.0)),
            ("half of the calls were throttled: they were not accepted", |r| {
                (0..25).for_each(|call| r.throttled(9.9, 5.05 + 0.2 * f64::from(call)));
                r.learn(9.9);
            },                                                                 19.9, Some(5.0)),
            ("a second 429 at once starts at the rate in force", |r| {
                r.learn(9.9);
                r.learn(9.9);
            },                                                                  9.9, Some(4.9)),
            ("the rate is removed", |r| { r.learn(9.9); r.forget(); },          9.9, None),
            ("nothing was asked for a minute", |r| { r.learn(9.9); r.rested(); }, 69.9, None),
        ];
        for (what, event, at, expected) in rows {
            let mut rate = LearnedRate::default();
            (0..100).for_each(|call| rate.sent(0.05 + 0.1 * f64::from(call)));
            event(&mut rate);
            let is = rate.rate(at);
            let close = is.zip(expected).map_or(is == expected, |(is, expected)| (is - expected).abs() < 1e-9);
            assert!(close, "{what}: {is:?}");
        }
    }

    #[test]
    fn the_rate_dips_to_seven_tenths_and_is_back_after_ten_seconds() {
        let mut learned_rate = LearnedRate::default();
        for call in 0..50 {
            learned_rate.sent(f64::from(call) * 0.1);
        }
        assert!(learned_rate.learn(5.0));
        let measured = learned_rate.rate(15.0).unwrap();
        assert!((learned_rate.rate(5.0).unwrap() - 0.7 * measured).abs() < 1e-9);
        assert!(learned_rate.rate(25.0).unwrap() > measured);
    }

    #[test]
    fn throttled_calls_and_calls_of_long_ago_were_not_let_in() {
        let mut learned_rate = LearnedRate::default();
        learned_rate.sent(1.0);
        learned_rate.sent(1.0);
        learned_rate.throttled(1.1, 1.0);
        learned_rate.throttled(1.1, 1.0);
        assert!(!learned_rate.learn(1.2), "nothing was let in");
        learned_rate.sent(2.0);
        assert!(!learned_rate.learn(8.0), "what went six seconds ago does not count");
    }
}
