//! The window: how many calls may be in flight at once.
//!
//! A new key starts with a small window. It doubles as long as the server accepts what fills it. After a 429 for concurrency,
//! the window is what is still in flight, because that is what the server accepts. From then on it grows by probes: one more
//! call, each time a number of calls have succeeded at a full window.
//!
//! The server accepts a call by its response, or by *silence*: 429s come sooner than successes, so a call that has been out
//! for longer than a 429 takes was accepted.

mod acks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::wait_queue::Lent;
use acks::PendingAck;

/// Until the first success, silence doubles the window up to this size.
///
/// A success shows whether the server tells its limits. Before that, one 429 may meet a whole burst.
const FREE: u32 = 64;
/// Until the first success, silence adds this much to a window larger than [`FREE`].
const STEP: u32 = 32;
/// How many calls have to succeed at a full window before it grows by a probe.
const PROBE_MIN: u32 = 10;
/// The same after failed probes: each one doubles the number, up to this.
const PROBE_MAX: u32 = 40;
/// Until so many calls have succeeded since a learned window was lowered again, a bare 429 counts as one for the rate. The
/// window has just shrunk to what the server accepts, so the number of calls at once is not the cause.
const TWICE: u32 = 3;

/// One admitted call, as the window knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) seq: u64,
    /// How many calls were in flight when it went, itself included.
    pub(super) n: u32,
    /// How many permits were lent then. Whether the server still counts their calls is not known.
    pub(super) lent: u32,
    /// It went above the size that is known to work.
    pub(super) probe: bool,
    /// It went above the window, as a probe of a blocked queue.
    pub(super) above: bool,
}

#[derive(Debug)]
pub(super) struct Window {
    in_flight: u32,
    /// Permits of calls whose response bodies are not read. Those calls do not count as in flight.
    pub(super) lent: Lent,
    /// The window: how many may be in flight at once.
    size: u32,
    /// The size of a new key's window.
    initial: u32,
    /// A 429 has shown how many calls the server accepts at once.
    learned: bool,
    /// A call has succeeded.
    answered: bool,
    /// The size is larger than `floor`, to find out whether that works.
    probing: bool,
    /// The last size that is known to work.
    floor: u32,
    /// How much the next successful probe adds.
    step: u32,
    /// How many successes at a full window the next probe takes.
    need: u32,
    /// How many of them have been counted.
    full: u32,
    /// The number of the last call sent before the size was lowered. Calls up to here say nothing about the size.
    low: u64,
    /// Successes since the size was lowered.
    since: u32,
    /// The most calls in flight at once of which one was accepted, among the calls after `peak_from`.
    peak: u32,
    peak_from: u64,
    /// The calls whose silence may still count, without gaps in their numbers.
    pending: VecDeque<PendingAck>,
    /// The number of the first of them.
    oldest: u64,
    /// Calls that had to wait in a limit below, and when they were sent from there.
    below: BTreeMap<u64, Option<Instant>>,
    /// How long the slowest recent 429 took.
    slowest: Option<Duration>,
}

impl Window {
    pub(super) fn new(initial: u32) -> Self {
        Self {
            in_flight: 0,
            lent: Lent::default(),
            size: initial.max(1),
            initial: initial.max(1),
            learned: false,
            answered: false,
            probing: false,
            floor: 1,
            step: 1,
            need: PROBE_MIN,
            full: 0,
            low: 0,
            since: u32::MAX,
            peak: 0,
            peak_from: 0,
            pending: VecDeque::with_capacity(1), // a key is kept for long, and most have few calls out
            oldest: 0,
            below: BTreeMap::new(),
            slowest: None,
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Whether a 429 has shown how many calls the server accepts at once.
    pub(super) fn is_learned(&self) -> bool {
        self.learned
    }

    #[cfg(test)]
    pub(super) fn floor(&self) -> u32 {
        self.floor
    }

    /// Whether one more call fits beside those in flight and `ahead` others that are about to go.
    pub(super) fn admits(&self, ahead: usize) -> bool {
        (self.in_flight as usize).saturating_add(ahead) < self.size as usize
    }

    /// How many calls in flight have to end for one more to fit.
    pub(super) fn missing(&self, ahead: usize) -> usize {
        (self.in_flight as usize).saturating_add(ahead).saturating_add(1).saturating_sub(self.size as usize)
    }

    /// Lends the permit of a call whose body is not read. The call no longer counts as in flight.
    pub(super) fn lend(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.lent.lend();
    }

    /// Counts an admitted call.
    pub(super) fn sent(&mut self, seq: u64, now: Instant) -> Flight {
        self.in_flight = self.in_flight.saturating_add(1);
        let probe = self.probing && self.in_flight > self.floor;
        let above = self.in_flight > self.size;
        let flight = Flight { seq, n: self.in_flight, lent: self.lent.count(), probe, above };
        if self.pending.is_empty() {
            self.oldest = seq;
        }
        self.pending.push_back(PendingAck { sent: now, flight, open: true });
        flight
    }

    /// The server accepted a call, by its response (`answered`) or by silence.
    pub(super) fn acked(&mut self, flight: Flight, answered: bool) {
        if flight.seq > self.peak_from {
            self.peak = self.peak.max(flight.n);
        }
        if flight.above {
            self.size = self.size.max(flight.n);
        }
        if self.learned {
            if flight.probe && self.probing && flight.n >= self.size {
                self.floor = self.size;
                self.step = self.step.saturating_mul(2);
                self.size = self.size.saturating_add(self.step);
            }
        } else if answered {
            if flight.n >= self.size.div_ceil(2) {
                self.size = self.size.saturating_add(1);
            }
        } else {
            let twice = flight.n.saturating_mul(2);
            let most = if self.answered { twice } else { twice.min(FREE.max(flight.n.saturating_add(STEP))) };
            self.size = self.size.max(most);
        }
    }

    /// A call succeeded.
    pub(super) fn success(&mut self, flight: Flight) {
        self.answered = true;
        if flight.seq <= self.low {
            return;
        }
        self.since = self.since.saturating_add(1);
        if self.learned && flight.n >= self.size {
            self.full += 1;
            if self.full >= self.need {
                self.full = 0;
                self.floor = self.size;
                self.step = 1;
                self.size = self.size.saturating_add(1);
                self.probing = true;
            }
        }
    }

    /// A call has ended, and its permit is free again.
    pub(super) fn left(&mut self, seq: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.below.remove(&seq);
    }

    /// Whether a bare 429 of this call cannot be about concurrency: the server accepted more calls at once of late, or has just
    /// shown what it accepts.
    pub(super) fn refutes(&self, flight: Flight) -> bool {
        let n = flight.n.saturating_add(flight.lent);
        self.learned && !flight.above && (n < self.peak || (self.since < TWICE && !flight.probe))
    }

    /// Forgets how many calls were accepted at once. `last` is the last call sent.
    pub(super) fn forget_peak(&mut self, last: u64) {
        self.peak = 0;
        self.peak_from = last;
    }

    /// Lowers the window after a 429 for concurrency to what is still in flight, lent permits included: the server accepts
    /// that much. If the call was a probe, the window goes back to the size before. The throttled call has already left; `last`
    /// is the last call sent.
    pub(super) fn lower(&mut self, flight: Flight, last: u64) {
        if flight.above && self.learned {
            return; // it shows what was known: more than the window is too many
        }
        let first = !self.learned;
        self.learned = true;
        let standing = self.in_flight.saturating_add(self.lent.count()).max(1);
        let later = flight.seq <= self.low;
        if later && standing >= self.size {
            return;
        }
        if !later && flight.probe && self.probing {
            self.size = self.floor;
            self.need = (2 * self.need).min(PROBE_MAX);
        } else {
            if !later && !first {
                self.since = 0;
                self.need = PROBE_MIN;
            }
            let kept = if later && flight.probe { self.floor } else { 1 };
            self.size = self.size.min(standing.max(kept));
        }
        self.probing = false;
        self.step = 1;
        self.full = 0;
        self.forget_peak(last);
        if !later {
            self.low = last;
        }
    }

    /// After an idle time, a window that was not learned from a 429 starts at its initial size again.
    pub(super) fn rested(&mut self) {
        if !self.learned {
            self.size = self.initial;
        }
    }
}
