//! When a call is sent although the controller believes that it will be throttled, so that no belief lasts for ever.
//!
//! A *window probe* goes above the window when only the window blocks the queue. A *level probe* goes although the buckets
//! are believed to be empty for longer than a call may wait. A *closed probe* finds out whether a closed key is open again;
//! when it goes is decided in `cooldown`.

use std::time::Duration;

use tokio::time::Instant;

use crate::wait_queue::Probe;

/// How long after the last admission the first window probe of a key goes: 0.7 s.
const FIRST_WINDOW_PROBE: Duration = Duration::from_millis(700);
/// How long after the last admission a later window probe goes: 5 s ...
const WINDOW_PROBE: Duration = Duration::from_secs(5);
/// ... or this many times the longest time that the window has blocked the queue, if that is longer.
const GAPS: u32 = 2;
/// Each throttled window probe doubles the wait for the next one, up to this many times.
const WINDOW_FACTOR_MAX: u32 = 8;
/// The longest wait for any probe: 10 minutes.
pub(super) const PROBE_MAX: Duration = Duration::from_secs(600);
/// The least time between two probes of a key, of any kind: 1 s.
const BETWEEN: Duration = Duration::from_secs(1);

/// The schedule of a key's probes.
#[derive(Debug)]
pub(super) struct Probes {
    /// When the last probe of any kind went.
    last: Option<Instant>,
    window: WindowProbes,
    level: Option<LevelProbes>, // rare
}

#[derive(Debug)]
struct WindowProbes {
    /// When a call was last admitted.
    admitted: Option<Instant>,
    /// Since when only the window blocks the queue.
    blocked: Option<Instant>,
    /// The longest time that it did.
    longest_gap: Duration,
    /// What the wait for the next probe is multiplied with.
    factor: u32,
    /// The first probe has gone.
    tried: bool,
}

#[derive(Debug, Clone, Copy)]
struct LevelProbes {
    next: Instant,
    /// How long the last probe waited.
    wait: Duration,
}

impl Default for Probes {
    fn default() -> Self {
        let window =
            WindowProbes { admitted: None, blocked: None, longest_gap: Duration::ZERO, factor: 1, tried: false };
        Self { last: None, window, level: None }
    }
}

impl Probes {
    /// When a probe may go that is due at this time.
    fn not_before(&self, at: Instant) -> Instant {
        self.last.map_or(at, |last| at.max(last + BETWEEN))
    }

    /// Whether the last probe is long enough ago for another one.
    pub(super) fn may_go(&self, now: Instant) -> bool {
        self.not_before(now) <= now
    }

    /// Only the window blocks a call. Returns when it may go as a probe.
    ///
    /// That is at most `max_wait` after the last admission, but not less than [`WINDOW_PROBE`]: the longest gap may be the
    /// time for which the process was suspended.
    pub(super) fn window_blocks(&mut self, now: Instant, max_wait: Duration) -> Instant {
        let window = &mut self.window;
        let since = *window.blocked.get_or_insert(now);
        let wait = if window.tried {
            let longest = max_wait.clamp(WINDOW_PROBE, PROBE_MAX);
            window.longest_gap.saturating_mul(GAPS).max(WINDOW_PROBE).saturating_mul(window.factor).min(longest)
        } else {
            FIRST_WINDOW_PROBE
        };
        let from = window.admitted.unwrap_or(since);
        self.not_before(from + wait)
    }

    /// The buckets are believed to be empty for longer than `max_wait`. Returns when a call may go as a probe, and whether
    /// this is new. `heard` is when the last response came.
    pub(super) fn levels_block(&mut self, heard: Instant, max_wait: Duration) -> (Instant, bool) {
        let events = self.level.is_none();
        let wait = max_wait.min(PROBE_MAX);
        let level = *self.level.get_or_insert_with(|| LevelProbes { next: heard + wait, wait });
        (self.not_before(level.next), events)
    }

    /// A call was admitted, perhaps as a probe.
    pub(super) fn admitted(&mut self, now: Instant, probe: Option<Probe>) {
        let window = &mut self.window;
        match probe {
            Some(Probe::Window) => window.tried = true,
            _ => {
                if let Some(since) = window.blocked.take() {
                    window.longest_gap = window.longest_gap.max(now.saturating_duration_since(since));
                }
                window.factor = 1;
            }
        }
        window.admitted = Some(now);
        if let (Some(Probe::Level), Some(level)) = (probe, &mut self.level) {
            level.wait = (level.wait * 2).min(PROBE_MAX);
            level.next = now + level.wait;
        }
        if probe.is_some() {
            self.last = Some(now);
        }
    }

    /// A window probe was throttled.
    pub(super) fn window_probe_throttled(&mut self) {
        self.window.factor = (self.window.factor * 2).min(WINDOW_FACTOR_MAX);
    }

    /// A call succeeded: the buckets are not empty.
    pub(super) fn succeeded(&mut self) {
        self.level = None;
    }

    /// After an idle time, the window probes start again.
    pub(super) fn rested(&mut self) {
        *self = Self { last: self.last, level: self.level, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MAX_WAIT: Duration = Duration::from_secs(120);

    #[test]
    fn window_probes_become_rarer_with_each_429_and_with_the_longest_gap() {
        let (start, mut probes) = (Instant::now(), Probes::default());
        probes.admitted(start, None);
        assert_eq!(probes.window_blocks(start, MAX_WAIT), start + FIRST_WINDOW_PROBE);
        let first = start + FIRST_WINDOW_PROBE;
        probes.admitted(first, Some(Probe::Window));
        assert_eq!(probes.window_blocks(first, MAX_WAIT), first + 5 * SECOND);
        for factor in [2, 4, 8, 8] {
            probes.window_probe_throttled();
            assert_eq!(probes.window_blocks(first, MAX_WAIT), first + 5 * factor * SECOND);
        }
        // An ordinary admission 10 s after the queue was blocked: twice that is longer than 5 s.
        probes.admitted(start + 10 * SECOND, None);
        assert_eq!(probes.window_blocks(start + 10 * SECOND, MAX_WAIT), start + 30 * SECOND);
    }

    #[test]
    fn no_window_probe_is_waited_for_longer_than_max_wait_whatever_the_longest_gap_was() {
        let (start, mut probes) = (Instant::now(), Probes::default());
        probes.window_blocks(start, MAX_WAIT);
        probes.admitted(start, Some(Probe::Window));
        probes.window_blocks(start, MAX_WAIT);
        let later = start + 3_600 * SECOND; // the clock has jumped
        probes.admitted(later, None);
        assert_eq!(probes.window_blocks(later, MAX_WAIT), later + MAX_WAIT);
        assert_eq!(probes.window_blocks(later, SECOND), later + WINDOW_PROBE);
        assert_eq!(probes.window_blocks(later, 3_600 * SECOND), later + PROBE_MAX);
    }

    #[test]
    fn level_probes_follow_after_twice_as_long_until_a_success() {
        let (start, mut probes) = (Instant::now(), Probes::default());
        let wait = 120 * SECOND;
        assert_eq!(probes.levels_block(start, wait), (start + wait, true));
        probes.admitted(start + wait, Some(Probe::Level));
        assert_eq!(probes.levels_block(start, wait), (start + 3 * wait, false));
        probes.admitted(start + 3 * wait, Some(Probe::Level));
        probes.admitted(start + 7 * wait, Some(Probe::Level));
        assert_eq!(probes.levels_block(start, wait), (start + 7 * wait + PROBE_MAX, false));
        probes.succeeded();
        assert_eq!(probes.levels_block(start + 900 * SECOND, wait), (start + 900 * SECOND + wait, true));
    }

    #[test]
    fn probes_of_all_kinds_together_are_a_second_apart() {
        let (start, mut probes) = (Instant::now(), Probes::default());
        probes.admitted(start, Some(Probe::Closed));
        assert!(!probes.may_go(start + SECOND / 2));
        assert!(probes.may_go(start + SECOND));
        assert_eq!(probes.window_blocks(start, MAX_WAIT), start + SECOND);
        assert_eq!(probes.levels_block(start, Duration::ZERO), (start + SECOND, true));
    }
}
