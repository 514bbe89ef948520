//! A dispatch rate learned from 429s, for limits that no header shows: cut to what was let in, then up a cubic.

/// How far the rate dips below what was measured: to 0.7 of it.
const BETA: f64 = 0.7;
/// Seconds until it is back at what was measured.
const RECOVERY: f64 = 10.0;
/// Counters of half a second, for the dispatches of the last five seconds.
const COUNTERS: usize = 10;
const SPAN: f64 = 5.0;
/// The slowest rate that is ever learned, calls a second.
const SLOWEST: f64 = 0.05;

#[derive(Debug, Default)]
pub(super) struct LearnedRate {
    /// What was measured, and when.
    learned: Option<(f64, f64)>,
    born: Option<f64>,
    counters: [u16; COUNTERS],
    /// The half second that the newest counter stands for.
    newest: u64,
}

impl LearnedRate {
    pub(super) fn sent(&mut self, now: f64) {
        self.born.get_or_insert(now);
        self.advance(now);
        let permit = self.permit(now);
        self.counters[permit] = self.counters[permit].saturating_add(1);
    }

    /// A dispatch that was throttled was not let in.
    pub(super) fn throttled(&mut self, now: f64, sent: f64) {
        self.advance(now);
        if half_second(sent) + COUNTERS as u64 > self.newest {
            let permit = self.permit(sent);
            self.counters[permit] = self.counters[permit].saturating_sub(1);
        }
    }

    /// Whether a rate is in force.
    pub(super) fn is_known(&self) -> bool {
        self.learned.is_some()
    }

    /// The rate in force, calls a second.
    pub(super) fn rate(&self, now: f64) -> Option<f64> {
        let (measured, at) = self.learned?;
        let x = (now - at) / RECOVERY - 1.0;
        Some(measured * (1.0 + (1.0 - BETA) * x * x * x))
    }

    /// Learns from a 429. False: nothing was let in, so there is no rate to learn.
    pub(super) fn learn(&mut self, now: f64) -> bool {
        self.advance(now);
        let recent: u32 = self.counters.iter().map(|count| u32::from(*count)).sum();
        if recent == 0 {
            return false;
        }
        let span = SPAN.min(f64::max(1.0, now - self.born.unwrap_or(now)));
        let let_in = f64::from(recent) / span;
        let measured = self.rate(now).map_or(let_in, |rate| rate.min(1.2 * let_in));
        self.learned = Some((measured.max(SLOWEST), now));
        true
    }

    pub(super) fn forget(&mut self) {
        self.learned = None;
    }

    /// Nothing was asked for a long time.
    pub(super) fn rested(&mut self) {
        *self = Self { newest: self.newest, ..Self::default() };
    }

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

    fn permit(&self, at: f64) -> usize {
        (half_second(at) % COUNTERS as u64) as usize
    }
}

fn half_second(at: f64) -> u64 {
    (at * 2.0) as u64 // saturates: never negative, never too large
}

#[cfg(test)]
mod tests {
    use super::*;

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
