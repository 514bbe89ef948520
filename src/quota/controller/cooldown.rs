//! Not before, and one at a time: the server's own "come back then", one for a key, and the key that is closed.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::Clearance;
use crate::backoff::{Backoff, drawn, spread};
use crate::time::add;
use crate::wait_queue::Closed;

/// A closed key is probed after a wait that doubles up to this: 10 minutes.
pub(super) const PROBE_MAX: Duration = Duration::from_secs(600);
/// From this episode in a row on, a hint is waited for at least half the wait without one.
const FLOOR_FROM: u32 = 3;

/// Whether a call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Now,
    At(Instant),
    /// One call is out, and the next goes when it is back, or at this moment.
    OneOut(Instant),
    /// The key is closed, and it is time for a probe; who is none is told this.
    Probe(Closed),
    Closed(Closed),
}

/// Why a key is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClosedReason {
    /// The server asks for a longer wait than anybody accepts.
    Wait,
    /// The server throttles everything: it is probed as often, however long that lasts.
    Failing,
    /// A quota of its own is used up: that of a day, of a model.
    Quota,
    /// The account's is: a plan, a budget, a balance.
    Account,
}

impl ClosedReason {
    pub(super) fn is_quota(self) -> bool {
        matches!(self, Self::Quota | Self::Account)
    }
}

#[derive(Debug, Clone, Copy)]
struct Closure {
    /// The next of the callers' own calls goes as a probe then.
    probe_at: Instant,
    wait: Duration,
    why: ClosedReason,
    /// A success of a call sent after this one opens the key.
    last: u64,
}

#[derive(Debug)]
pub(super) struct Cooldown {
    until: Option<Instant>,
    rng: Rng,
    /// Nothing is let in: one at a time, until one is.
    one_at_a_time: bool,
    closure: Option<Box<Closure>>, // rare, and a key is kept for long
    /// The call that is out alone, or as a probe, and since when.
    out: Option<(u64, Instant)>,
}

impl Cooldown {
    pub(super) fn new(rng: Rng) -> Self {
        Self { until: None, rng, one_at_a_time: false, closure: None, out: None }
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closure.is_some()
    }

    /// Whether a call that has been let go may still go. The probe of a closed key may.
    pub(super) fn clearance(&self, now: Instant, seq: u64) -> Clearance {
        match (&self.closure, self.until) {
            (Some(_), _) if self.out.is_some_and(|(out, _)| out == seq) => Clearance::Clear,
            (Some(closure), _) => Clearance::Closed(self.said(now, closure)),
            (None, Some(until)) if until > now => Clearance::Until(until),
            (None, _) => Clearance::Clear,
        }
    }

    /// Whether a call may go that has so many others before it. The call that is out alone or as a probe counts for
    /// `lifetime`: its caller may have stopped polling it.
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

    /// Whether it is too early for any call, be it a probe.
    pub(super) fn holds(&self, now: Instant) -> bool {
        let until = self.closure.as_ref().map(|closure| self.probe_at(closure)).or(self.until);
        until.is_some_and(|until| until > now)
    }

    /// A probe goes no earlier than any other call: a hint may end later than the key's first wait.
    fn probe_at(&self, closure: &Closure) -> Instant {
        self.until.map_or(closure.probe_at, |until| until.max(closure.probe_at))
    }

    /// What callers are told; while a probe is out: that the next one may follow after as long again.
    fn said(&self, now: Instant, closure: &Closure) -> Closed {
        let left = self.probe_at(closure).saturating_duration_since(now);
        Closed { quota: closure.why.is_quota(), retry_after: if left.is_zero() { closure.wait } else { left } }
    }

    /// A hint for the key: never earlier than it says, and a little later each time anew.
    pub(super) fn hinted(&mut self, now: Instant, hint: Duration, in_a_row: u32, backoff: &Backoff) {
        let floor = if in_a_row >= FLOOR_FROM { backoff.base(in_a_row) / 2 } else { Duration::ZERO };
        let wait = hint.max(floor).saturating_add(spread(hint, &mut self.rng));
        self.not_before(add(now, wait));
    }

    /// A 429 without a hint.
    pub(super) fn unhinted(&mut self, now: Instant, in_a_row: u32, backoff: &Backoff) {
        let wait = backoff.draw(in_a_row, &mut self.rng);
        self.not_before(add(now, wait));
    }

    /// A wait between half of this one and all of it.
    pub(super) fn drawn(&mut self, wait: Duration) -> Duration {
        drawn(wait, &mut self.rng)
    }

    /// The wait of a call that is held back by itself, after so many 429s of its own.
    pub(super) fn wait_of_call(&mut self, hint: Option<Duration>, throttles: u32, backoff: &Backoff) -> Duration {
        match hint {
            Some(hint) => self.own_wait(hint),
            None => backoff.draw(throttles, &mut self.rng),
        }
    }

    /// The wait of one call alone.
    pub(super) fn own_wait(&mut self, hint: Duration) -> Duration {
        hint.saturating_add(spread(hint, &mut self.rng))
    }

    fn not_before(&mut self, at: Instant) {
        self.until = Some(self.until.map_or(at, |until| until.max(at)));
    }

    pub(super) fn set_one_at_a_time(&mut self, one_at_a_time: bool) {
        self.one_at_a_time = one_at_a_time;
    }

    /// Closes the key, or, when it was a probe that was throttled, keeps it closed for twice as long.
    ///
    /// Tells how long until a probe may go; nothing if it was a call of before, which says what we know.
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
        // A probe that meets a plain 429 says nothing of the quota.
        let before = self.closure.as_ref().map(|closure| closure.why).filter(|_| !why.is_quota());
        self.closure = Some(Box::new(Closure { probe_at: add(now, wait), wait, why: before.unwrap_or(why), last }));
        Some(wait)
    }

    /// Another key of the account is closed; this one may be probed when so much time is left of it. True: it was open. One
    /// that was closed already keeps its own reason: the account does not open it again.
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

    /// True: the account's quota had closed it, and it is open again.
    pub(super) fn open_with_account(&mut self) -> bool {
        self.closure.take_if(|closure| closure.why == ClosedReason::Account).is_some()
    }

    pub(super) fn sent(&mut self, now: Instant, seq: u64) {
        if self.one_at_a_time || self.closure.is_some() {
            self.out = Some((seq, now));
        }
    }

    pub(super) fn back(&mut self, seq: u64) {
        self.out.take_if(|(out, _)| *out == seq);
    }

    /// A call succeeded. True: it opened the key.
    pub(super) fn success(&mut self, seq: u64) -> bool {
        self.back(seq);
        let opened = self.closure.as_ref().is_some_and(|closure| seq > closure.last);
        if opened {
            self.closure = None;
        }
        opened
    }
}
