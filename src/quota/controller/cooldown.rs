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
pub(super) enum Opens {
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
pub(super) enum Why {
    /// The server asks for a longer wait than anybody accepts.
    Wait,
    /// The server refuses everything: it is probed as often, however long that lasts.
    Failing,
    /// A quota of its own is used up: that of a day, of a model.
    Quota,
    /// The account's is: a plan, a budget, a balance.
    Account,
}

impl Why {
    pub(super) fn is_quota(self) -> bool {
        matches!(self, Self::Quota | Self::Account)
    }
}

#[derive(Debug, Clone, Copy)]
struct Shut {
    /// The next of the callers' own calls goes as a probe then.
    probe_at: Instant,
    wait: Duration,
    why: Why,
    /// A success of a call sent after this one opens the key.
    last: u64,
}

#[derive(Debug)]
pub(super) struct Cooldown {
    until: Option<Instant>,
    rng: Rng,
    /// Nothing is let in: one at a time, until one is.
    alone: bool,
    shut: Option<Box<Shut>>, // rare, and a key is kept for long
    /// The call that is out alone, or as a probe, and since when.
    out: Option<(u64, Instant)>,
}

impl Cooldown {
    pub(super) fn new(rng: Rng) -> Self {
        Self { until: None, rng, alone: false, shut: None, out: None }
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
            (Some(_), _) if self.out.is_some_and(|(out, _)| out == seq) => Clearance::Clear,
            (Some(shut), _) => Clearance::Closed(self.said(now, shut)),
            (None, Some(until)) if until > now => Clearance::Until(until),
            (None, _) => Clearance::Clear,
        }
    }

    /// Whether a call may go that has so many others before it. The call that is out alone or as a probe counts for
    /// `lifetime`: its caller may have stopped polling it.
    pub(super) fn opens(&self, now: Instant, ahead: usize, lifetime: Duration) -> Opens {
        let out_until = self.out.map(|(_, since)| add(since, lifetime)).filter(|until| *until > now);
        if let Some(shut) = &self.shut {
            let said = self.said(now, shut);
            let early = out_until.is_some() || ahead > 0 || now < self.probe_at(shut);
            return if early { Opens::Closed(said) } else { Opens::Probe(said) };
        }
        match out_until {
            Some(until) if self.alone => return Opens::OneOut(until),
            None if self.alone && ahead > 0 => return Opens::OneOut(add(now, lifetime)),
            _ => {}
        }
        self.until.filter(|until| *until > now).map_or(Opens::Now, Opens::At)
    }

    /// Whether it is too early for any call, be it a probe.
    pub(super) fn holds(&self, now: Instant) -> bool {
        let until = self.shut.as_ref().map(|shut| self.probe_at(shut)).or(self.until);
        until.is_some_and(|until| until > now)
    }

    /// A probe goes no earlier than any other call: a hint may end later than the key's first wait.
    fn probe_at(&self, shut: &Shut) -> Instant {
        self.until.map_or(shut.probe_at, |until| until.max(shut.probe_at))
    }

    /// What callers are told; while a probe is out: that the next one may follow after as long again.
    fn said(&self, now: Instant, shut: &Shut) -> Closed {
        let left = self.probe_at(shut).saturating_duration_since(now);
        Closed { quota: shut.why.is_quota(), retry_after: if left.is_zero() { shut.wait } else { left } }
    }

    /// A hint for the key: never earlier than it says, and a little later each time anew.
    pub(super) fn hinted(&mut self, now: Instant, hint: Duration, in_a_row: u32, backoff: &Backoff) {
        let floor = if in_a_row >= FLOOR_FROM { backoff.base(in_a_row) / 2 } else { Duration::ZERO };
        let wait = hint.max(floor).saturating_add(spread(hint, &mut self.rng));
        self.not_before(add(now, wait));
    }

    /// A refusal without a hint.
    pub(super) fn unhinted(&mut self, now: Instant, in_a_row: u32, backoff: &Backoff) {
        let wait = backoff.draw(in_a_row, &mut self.rng);
        self.not_before(add(now, wait));
    }

    /// A wait between half of this one and all of it.
    pub(super) fn drawn(&mut self, wait: Duration) -> Duration {
        drawn(wait, &mut self.rng)
    }

    /// The wait of a call that is held back by itself, after so many refusals of its own.
    pub(super) fn wait_of_call(&mut self, hint: Option<Duration>, refusals: u32, backoff: &Backoff) -> Duration {
        match hint {
            Some(hint) => self.own_wait(hint),
            None => backoff.draw(refusals, &mut self.rng),
        }
    }

    /// The wait of one call alone.
    pub(super) fn own_wait(&mut self, hint: Duration) -> Duration {
        hint.saturating_add(spread(hint, &mut self.rng))
    }

    fn not_before(&mut self, at: Instant) {
        self.until = Some(self.until.map_or(at, |until| until.max(at)));
    }

    pub(super) fn alone(&mut self, alone: bool) {
        self.alone = alone;
    }

    /// Closes the key, or, when it was a probe that was refused, keeps it closed for twice as long.
    ///
    /// Tells how long until a probe may go; nothing if it was a call of before, which says what we know.
    pub(super) fn shut(&mut self, now: Instant, first: Duration, why: Why, seq: u64, last: u64) -> Option<Duration> {
        let wait = match &self.shut {
            Some(shut) if seq > shut.last && shut.why == Why::Failing && why == Why::Failing => first,
            Some(shut) if seq > shut.last => (shut.wait * 2).min(PROBE_MAX),
            Some(_) => return None,
            None => first.min(PROBE_MAX),
        };
        // A probe that meets a plain refusal says nothing of the quota.
        let before = self.shut.as_ref().map(|shut| shut.why).filter(|_| !why.is_quota());
        self.shut = Some(Box::new(Shut { probe_at: add(now, wait), wait, why: before.unwrap_or(why), last }));
        Some(wait)
    }

    /// Another key of the account is closed; this one may be probed when so much time is left of it. True: it was open. One
    /// that was closed already keeps its own reason: the account does not open it again.
    pub(super) fn shut_with_account(&mut self, now: Instant, left: Duration, wait: Duration, last: u64) -> bool {
        let probe_at = add(now, left);
        if let Some(shut) = &mut self.shut {
            (shut.probe_at, shut.wait) = (shut.probe_at.max(probe_at), shut.wait.max(wait));
            shut.last = last;
            return false;
        }
        self.shut = Some(Box::new(Shut { probe_at, wait, why: Why::Account, last }));
        true
    }

    /// True: the account's quota had closed it, and it is open again.
    pub(super) fn open_with_account(&mut self) -> bool {
        self.shut.take_if(|shut| shut.why == Why::Account).is_some()
    }

    pub(super) fn sent(&mut self, now: Instant, seq: u64) {
        if self.alone || self.shut.is_some() {
            self.out = Some((seq, now));
        }
    }

    pub(super) fn back(&mut self, seq: u64) {
        self.out.take_if(|(out, _)| *out == seq);
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
