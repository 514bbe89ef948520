//! When no call of a key may go: while it cools down, while one call is out alone, and while it is closed.
//!
//! A *cooldown* is a time before which no call is sent: the server's hint, or a backoff. *One at a time* means that the server
//! accepted nothing of late, so that the next call goes when the one before is back. A *closed* key answers its calls
//! locally, and sends one of them as a probe from time to time.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::Clearance;
use crate::backoff::{Backoff, drawn, spread};
use crate::quota::state::{ClosedReason, KeyState};
use crate::time::add;
use crate::wait_queue::Closed;

/// The longest wait for the next probe of a closed key: 10 minutes.
pub(super) const PROBE_MAX: Duration = Duration::from_secs(600);
/// From this episode in a row on, the cooldown after a hint is at least half of the longest backoff. The hint may be zero.
const FLOOR_FROM: u32 = 3;

/// Whether a call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It may.
    Now,
    /// It may at this time.
    At(Instant),
    /// One call is out alone. The next one may go when it is back, or at this time.
    OneOut(Instant),
    /// The key is closed and a probe is due. A call that cannot be the probe is told this.
    Probe(Closed),
    /// The key is closed.
    Closed(Closed),
}

/// How a key is closed.
#[derive(Debug, Clone, Copy)]
struct Closure {
    /// When the next call goes as a probe.
    probe_at: Instant,
    /// How long that probe waits in all.
    wait: Duration,
    why: ClosedReason,
    /// The number of the last call sent before. A success of a later call opens the key.
    last: u64,
}

/// What holds back all calls of a key.
#[derive(Debug)]
pub(super) struct Cooldown {
    /// When the cooldown ends.
    until: Option<Instant>,
    rng: Rng,
    /// Nothing was accepted of late: one call at a time, until one is accepted.
    one_at_a_time: bool,
    closure: Option<Box<Closure>>, // rare, and a key is kept for long
    /// The call that is out alone or as a probe, and since when.
    out: Option<(u64, Instant)>,
}

impl Cooldown {
    pub(super) fn new(rng: Rng) -> Self {
        Self { until: None, rng, one_at_a_time: false, closure: None, out: None }
    }

    /// When the cooldown ends, or ended.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the key is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closure.is_some()
    }

    /// Whether an admitted call that has not been sent yet may still go. The probe of a closed key may.
    pub(super) fn clearance(&self, now: Instant, seq: u64) -> Clearance {
        match (&self.closure, self.until) {
            (Some(_), _) if self.out.is_some_and(|(out, _)| out == seq) => Clearance::Clear,
            (Some(closure), _) => Clearance::Closed(self.said(now, closure)),
            (None, Some(until)) if until > now => Clearance::Until(until),
            (None, _) => Clearance::Clear,
        }
    }

    /// Whether a call may go that has `ahead` others before it. The call that is out alone or as a probe counts for
    /// `lifetime`, because its caller may have stopped polling it.
    pub(super) fn opens(&self, now: Instant, ahead: usize, lifetime: Duration) -> State {
        let out_until = self.out.map(|(_, since)| add(since, lifetime)).filter(|until| *until > now);
        if let Some(closure) = &self.closure {
            let said = self.said(now, closure);
            let early = out_until.is_some() || ahead > 0 || now < self.probe_at(closure);
            return if early { State::Closed(said) } else { State::Probe(said) };
        }
        match out_until {
            Some(until) if self.one_at_a_time => return State::OneOut(until),
            None if self.one_at_a_time && ahead > 0 => return State::OneOut(add(now, lifetime)),
            _ => {}
        }
        self.until.filter(|until| *until > now).map_or(State::Now, State::At)
    }

    /// The state that users see.
    pub(super) fn state(&self, now: Instant) -> KeyState {
        match (&self.closure, self.until) {
            (Some(closure), _) => KeyState::Closed {
                reason: closure.why,
                next_probe_in: self.probe_at(closure).saturating_duration_since(now),
            },
            (None, Some(until)) if until > now => KeyState::CoolingDown { ends_in: until - now },
            (None, _) => KeyState::Open,
        }
    }

    /// Ends the cooldown and opens the key. Calls in flight keep their permits.
    pub(super) fn forget(&mut self) {
        (self.until, self.closure, self.one_at_a_time) = (None, None, false);
    }

    /// Whether it is too early for any call, a probe included.
    pub(super) fn holds(&self, now: Instant) -> bool {
        let until = self.closure.as_ref().map(|closure| self.probe_at(closure)).or(self.until);
        until.is_some_and(|until| until > now)
    }

    /// When the next probe is due. It also waits for the end of the cooldown, which a hint may set later.
    fn probe_at(&self, closure: &Closure) -> Instant {
        self.until.map_or(closure.probe_at, |until| until.max(closure.probe_at))
    }

    /// What callers are told. If a probe is out or due, the next one follows after the same time again.
    fn said(&self, now: Instant, closure: &Closure) -> Closed {
        let left = self.probe_at(closure).saturating_duration_since(now);
        Closed { quota: closure.why.is_quota(), retry_after: if left.is_zero() { closure.wait } else { left } }
    }

    /// Cools down after a 429 with a hint: never shorter than the hint, and longer by a random part.
    pub(super) fn hinted(&mut self, now: Instant, hint: Duration, in_a_row: u32, backoff: &Backoff) {
        let floor = if in_a_row >= FLOOR_FROM { backoff.base(in_a_row) / 2 } else { Duration::ZERO };
        let wait = hint.max(floor).saturating_add(spread(hint, &mut self.rng));
        self.not_before(add(now, wait));
    }

    /// Cools down after a 429 without a hint.
    pub(super) fn unhinted(&mut self, now: Instant, in_a_row: u32, backoff: &Backoff) {
        let wait = backoff.draw(in_a_row, &mut self.rng);
        self.not_before(add(now, wait));
    }

    /// A random time between half of this one and all of it.
    pub(super) fn drawn(&mut self, wait: Duration) -> Duration {
        drawn(wait, &mut self.rng)
    }

    /// The wait of one call after so many 429s that concern it alone.
    pub(super) fn wait_of_call(&mut self, hint: Option<Duration>, throttles: u32, backoff: &Backoff) -> Duration {
        match hint {
            Some(hint) => self.own_wait(hint),
            None => backoff.draw(throttles, &mut self.rng),
        }
    }

    /// The wait of one call alone after a hint.
    pub(super) fn own_wait(&mut self, hint: Duration) -> Duration {
        hint.saturating_add(spread(hint, &mut self.rng))
    }

    /// Extends the cooldown. It never ends earlier than it did.
    fn not_before(&mut self, at: Instant) {
        self.until = Some(self.until.map_or(at, |until| until.max(at)));
    }

    /// Whether calls go one at a time.
    pub(super) fn set_one_at_a_time(&mut self, one_at_a_time: bool) {
        self.one_at_a_time = one_at_a_time;
    }

    /// Closes the key, or keeps it closed for twice as long if the throttled call was a probe.
    ///
    /// Returns how long until the next probe is due. `None` if the call was sent before the key closed: it shows nothing new.
    pub(super) fn close(
        &mut self,
        now: Instant,
        first: Duration,
        why: ClosedReason,
        seq: u64,
        last: u64,
    ) -> Option<Duration> {
        let wait = match &self.closure {
            Some(closure)
                if seq > closure.last && closure.why == ClosedReason::Failing && why == ClosedReason::Failing =>
            {
                first
            }
            Some(closure) if seq > closure.last => (closure.wait * 2).min(PROBE_MAX),
            Some(_) => return None,
            None => first.min(PROBE_MAX),
        };
        // A probe with a plain 429 does not show that the quota is available.
        let before = self.closure.as_ref().map(|closure| closure.why).filter(|_| !why.is_quota());
        self.closure = Some(Box::new(Closure { probe_at: add(now, wait), wait, why: before.unwrap_or(why), last }));
        Some(wait)
    }

    /// Closes the key because its account is closed. Its own probe is due after `left`.
    ///
    /// Returns true if it was open. A key that was closed already keeps its own reason, and the account does not open it.
    pub(super) fn close_with_account(&mut self, now: Instant, left: Duration, wait: Duration, last: u64) -> bool {
        let probe_at = add(now, left);
        if let Some(closure) = &mut self.closure {
            (closure.probe_at, closure.wait) = (closure.probe_at.max(probe_at), closure.wait.max(wait));
            closure.last = last;
            return false;
        }
        self.closure = Some(Box::new(Closure { probe_at, wait, why: ClosedReason::Account, last }));
        true
    }

    /// Opens the key if its account had closed it. Returns true if so.
    pub(super) fn open_with_account(&mut self) -> bool {
        self.closure.take_if(|closure| closure.why == ClosedReason::Account).is_some()
    }

    /// Notes an admitted call, if it is out alone or as a probe.
    pub(super) fn sent(&mut self, now: Instant, seq: u64) {
        if self.one_at_a_time || self.closure.is_some() {
            self.out = Some((seq, now));
        }
    }

    /// Notes that a call has ended or was answered.
    pub(super) fn back(&mut self, seq: u64) {
        self.out.take_if(|(out, _)| *out == seq);
    }

    /// A call succeeded. Returns true if that opened the key.
    pub(super) fn success(&mut self, seq: u64) -> bool {
        self.back(seq);
        let opened = self.closure.as_ref().is_some_and(|closure| seq > closure.last);
        if opened {
            self.closure = None;
        }
        opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIFETIME: Duration = Duration::from_secs(120);

    fn secs(secs: u64) -> Duration {
        SECOND * u32::try_from(secs).unwrap()
    }

    /// The state in words: what a call at this time meets.
    fn state(cooldown: &Cooldown, start: Instant, at: u64) -> String {
        let left = |until: Instant| (until - start).as_secs();
        match cooldown.opens(start + secs(at), 0, LIFETIME) {
            State::Now => "open".into(),
            State::At(until) => format!("cooling down until {}", left(until)),
            State::OneOut(until) => format!("one out until {}", left(until)),
            State::Probe(_) => "closed, probe due".into(),
            State::Closed(closed) => format!("closed, retry after {}", closed.retry_after.as_secs()),
        }
    }

    #[test]
    fn each_event_changes_the_state_of_a_key_as_the_table_says() {
        type Event = fn(&mut Cooldown, Instant);
        type Row = (&'static str, Event, &'static [(u64, &'static str)]);
        fn closed(cooldown: &mut Cooldown, start: Instant) {
            cooldown.close(start, 30 * SECOND, ClosedReason::Quota, 5, 10);
        }
        fn probed(cooldown: &mut Cooldown, start: Instant) {
            closed(cooldown, start);
            cooldown.sent(start + 30 * SECOND, 11);
        }
        #[rustfmt::skip]
        let rows: [Row; 13] = [
            // event                                        what a call meets, by the second at which it comes
            ("a new key", |_, _| {},                                    &[(0, "open")]),
            ("a cooldown of ten seconds", |c, t| c.not_before(t + 10 * SECOND),
                &[(0, "cooling down until 10"), (9, "cooling down until 10"), (10, "open")]),
            ("a shorter one does not end the longer one",
                |c, t| { c.not_before(t + 10 * SECOND); c.not_before(t + SECOND); },
                &[(0, "cooling down until 10")]),
            ("nothing is accepted: one at a time", |c, _| c.set_one_at_a_time(true), &[(0, "open")]),
            ("and one is out",
                |c, t| { c.set_one_at_a_time(true); c.sent(t, 1); },
                &[(0, "one out until 120"), (120, "open")]),
            ("it is back", |c, t| { c.set_one_at_a_time(true); c.sent(t, 1); c.back(1); }, &[(0, "open")]),
            ("the quota is exhausted", closed,
                &[(0, "closed, retry after 30"), (29, "closed, retry after 1"), (30, "closed, probe due")]),
            ("a call of before meets the same", |c, t| { closed(c, t); c.close(t + SECOND, SECOND, ClosedReason::Quota, 10, 10); },
                &[(1, "closed, retry after 29")]),
            ("a call of before succeeds", |c, t| { closed(c, t); c.success(10); }, &[(1, "closed, retry after 29")]),
            ("the probe is out: others are told of the next one", probed,
                &[(31, "closed, retry after 30"), (150, "closed, probe due")]),
            ("the probe is throttled: twice as long",
                |c, t| { probed(c, t); c.back(11); c.close(t + 31 * SECOND, 30 * SECOND, ClosedReason::Quota, 11, 11); },
                &[(31, "closed, retry after 60"), (91, "closed, probe due")]),
            ("the probe succeeds", |c, t| { probed(c, t); c.success(11); }, &[(31, "open")]),
            ("everything fails: probes stay 30 s apart",
                |c, t| for (at, seq) in [(0, 5), (30, 11), (60, 12)] {
                    c.close(t + secs(at), 30 * SECOND, ClosedReason::Failing, seq, if seq == 5 { 10 } else { seq });
                },
                &[(60, "closed, retry after 30"), (90, "closed, probe due")]),
        ];
        for (what, event, expected) in rows {
            let (start, mut cooldown) = (Instant::now(), Cooldown::new(Rng::with_seed(1)));
            event(&mut cooldown, start);
            for (at, expected) in expected {
                assert_eq!(state(&cooldown, start, *at), *expected, "{what}, at {at} s");
            }
        }
    }
}
