//! Not before, and one at a time: the server's own "come back then", one for a key, and the key that is closed.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::Clearance;
use crate::backoff::{self, Backoff};
use crate::room::Closed;
use crate::time::add;

/// A closed key is probed after a wait that doubles up to this: 10 minutes.
pub(super) const PROBE_MAX: Duration = Duration::from_secs(600);
/// From this episode in a row on, a hint is waited for at least half the wait without one.
const FLOOR_FROM: u32 = 3;

/// Whether a call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opens {
    Now,
    At(Instant),
    /// One call is out, and the next goes when it is back.
    OneOut,
    /// The key is closed, and it is time for a probe; who is none is told this.
    Probe(Closed),
    Closed(Closed),
}

#[derive(Debug, Clone, Copy)]
struct Shut {
    /// The next of the callers' own calls goes as a probe then.
    probe_at: Instant,
    wait: Duration,
    quota: bool,
    /// A success of a call sent after this one opens the key.
    last: u64,
}

#[derive(Debug)]
pub(super) struct Cooldown {
    until: Option<Instant>,
    rng: Rng,
    backoff: Backoff,
    /// Nothing is let in: one at a time, until one is.
    alone: bool,
    shut: Option<Box<Shut>>, // rare, and a key is kept for long
    /// The call that is out alone, or as a probe; 0: none.
    out: u64,
}

impl Cooldown {
    pub(super) fn new(rng: Rng, backoff: Backoff) -> Self {
        Self { until: None, rng, backoff, alone: false, shut: None, out: 0 }
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut.is_some()
    }

    /// Whether a call that has been let go may still go. The probe of a closed key may.
    pub(super) fn clearance(&self, now: Instant, seq: u64) -> Clearance {
        match (&self.shut, self.until) {
            (Some(_), _) if seq == self.out => Clearance::Clear,
            (Some(shut), _) => Clearance::Closed(self.said(now, shut)),
            (None, Some(until)) if until > now => Clearance::Until(until),
            (None, _) => Clearance::Clear,
        }
    }

    pub(super) fn opens(&self, now: Instant, ahead: usize) -> Opens {
        let busy = self.out != 0 || ahead > 0;
        if let Some(shut) = &self.shut {
            let said = self.said(now, shut);
            return if busy || now < self.probe_at(shut) { Opens::Closed(said) } else { Opens::Probe(said) };
        }
        if self.alone && busy {
            return Opens::OneOut;
        }
        self.until.filter(|until| *until > now).map_or(Opens::Now, Opens::At)
    }

    /// A probe goes no earlier than any other call: a hint may end later than the key's first wait.
    fn probe_at(&self, shut: &Shut) -> Instant {
        self.until.map_or(shut.probe_at, |until| until.max(shut.probe_at))
    }

    /// What callers are told; while a probe is out: that the next one may follow after as long again.
    fn said(&self, now: Instant, shut: &Shut) -> Closed {
        let left = self.probe_at(shut).saturating_duration_since(now);
        Closed { quota: shut.quota, retry_after: if left.is_zero() { shut.wait } else { left } }
    }

    /// A hint for the key: never earlier than it says, and a little later each time anew.
    pub(super) fn hinted(&mut self, now: Instant, hint: Duration, in_a_row: u32) {
        let floor = if in_a_row >= FLOOR_FROM { self.backoff.base(in_a_row) / 2 } else { Duration::ZERO };
        let wait = hint.max(floor).saturating_add(backoff::spread(hint, &mut self.rng));
        self.not_before(add(now, wait));
    }

    /// A refusal without a hint.
    pub(super) fn unhinted(&mut self, now: Instant, in_a_row: u32) {
        let wait = self.backoff.draw(in_a_row, &mut self.rng);
        self.not_before(add(now, wait));
    }

    /// The wait of one call alone.
    pub(super) fn own_wait(&mut self, hint: Duration) -> Duration {
        hint.saturating_add(backoff::spread(hint, &mut self.rng))
    }

    fn not_before(&mut self, at: Instant) {
        self.until = Some(self.until.map_or(at, |until| until.max(at)));
    }

    pub(super) fn alone(&mut self, alone: bool) {
        self.alone = alone;
    }

    /// Closes the key, or, when it was a probe that was refused, keeps it closed for twice as long.
    ///
    /// Tells how long until a probe may go, if the key was open.
    pub(super) fn shut(&mut self, now: Instant, first: Duration, quota: bool, seq: u64, last: u64) -> Option<Duration> {
        let was_open = self.shut.is_none();
        let wait = match &self.shut {
            Some(shut) if seq > shut.last => (shut.wait * 2).min(PROBE_MAX),
            Some(_) => return None, // a call of before: it says what we know
            None => first.min(PROBE_MAX),
        };
        self.shut = Some(Box::new(Shut { probe_at: add(now, wait), wait, quota, last }));
        was_open.then_some(wait)
    }

    pub(super) fn sent(&mut self, seq: u64) {
        if self.alone || self.shut.is_some() {
            self.out = seq;
        }
    }

    pub(super) fn back(&mut self, seq: u64) {
        if self.out == seq {
            self.out = 0;
        }
    }

    /// A call succeeded. True: it opened the key.
    pub(super) fn success(&mut self, seq: u64) -> bool {
        self.back(seq);
        let opened = self.shut.as_ref().is_some_and(|shut| seq > shut.last);
        if opened {
            self.shut = None;
        }
        opened
    }
}
