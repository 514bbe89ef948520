//! How many calls at once: doubled by silence, and after a concurrency refusal what still stands, then probed upwards.
//!
//! Refusals are fast and successes slow, so a call that has been out for [`ACK`] without an answer was let in.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Silence of this length is an acknowledgement: 0.35 s.
pub(super) const ACK: Duration = Duration::from_millis(350);
/// Up to here the window doubles before the first header; from here on it grows by [`STEP`].
const FREE: u32 = 64;
const STEP: u32 = 32;
/// How many successes at a full window it takes to try one more; doubled by each failed try, up to the maximum.
const PROBE_MIN: u32 = 10;
const PROBE_MAX: u32 = 40;
/// A concurrency refusal within so many successes of the last one was about something else.
const TWICE: u32 = 3;

/// One dispatch, as the window knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) seq: u64,
    /// How many were in flight when it went, itself included.
    pub(super) n: u32,
    /// It went above the size that is known to be good.
    pub(super) probe: bool,
}

#[derive(Debug, Clone, Copy)]
struct Young {
    /// When its silence counts.
    due: Instant,
    n: u32,
    probe: bool,
    open: bool,
}

#[derive(Debug)]
pub(super) struct Window {
    in_flight: u32,
    size: u32,
    initial: u32,
    learned: bool,
    probing: bool,
    floor: u32,
    step: u32,
    need: u32,
    full: u32,
    /// What went up to here says nothing about the size set since.
    low: u64,
    /// Successes since the size was lowered.
    since: u32,
    /// The most that is known to have been let in at once since `peak_from`.
    peak: u32,
    peak_from: u64,
    /// From the oldest dispatch younger than [`ACK`] that is still out, by number, without gaps.
    young: VecDeque<Young>,
    /// The number of the first of them.
    oldest: u64,
}

impl Window {
    pub(super) fn new(initial: u32) -> Self {
        Self {
            in_flight: 0,
            size: initial.max(1),
            initial: initial.max(1),
            learned: false,
            probing: false,
            floor: 1,
            step: 1,
            need: PROBE_MIN,
            full: 0,
            low: 0,
            since: u32::MAX,
            peak: 0,
            peak_from: 0,
            young: VecDeque::with_capacity(1), // a key is kept for long, and most have few calls out
            oldest: 0,
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Whether refusals have shown how many at once the server takes.
    pub(super) fn is_learned(&self) -> bool {
        self.learned
    }

    #[cfg(test)]
    pub(super) fn floor(&self) -> u32 {
        self.floor
    }

    /// Whether one more fits beside what is out and what is about to go.
    pub(super) fn admits(&self, ahead: usize) -> bool {
        (self.in_flight as usize).saturating_add(ahead) < self.size as usize
    }

    pub(super) fn sent(&mut self, seq: u64, now: Instant) -> Flight {
        self.in_flight = self.in_flight.saturating_add(1);
        let probe = self.probing && self.in_flight > self.floor;
        let flight = Flight { seq, n: self.in_flight, probe };
        if self.young.is_empty() {
            self.oldest = seq;
        }
        self.young.push_back(Young { due: now + ACK, n: flight.n, probe, open: true });
        flight
    }

    /// The next call that has been out for [`ACK`] without an answer.
    pub(super) fn silent(&mut self, now: Instant) -> Option<Flight> {
        while let Some(young) = self.young.front().copied() {
            if now < young.due {
                return None;
            }
            let seq = self.oldest;
            self.forget_oldest();
            if young.open {
                return Some(Flight { seq, n: young.n, probe: young.probe });
            }
        }
        None
    }

    /// When the next silence is due.
    pub(super) fn next_silence(&self) -> Option<Instant> {
        self.young.iter().find(|young| young.open).map(|young| young.due)
    }

    /// Takes a call out of those whose silence would count. False: it counted already.
    pub(super) fn close(&mut self, seq: u64) -> bool {
        let Some(index) = seq.checked_sub(self.oldest) else { return false };
        let young = usize::try_from(index).ok().and_then(|index| self.young.get_mut(index));
        let counts = young.is_some_and(|young| std::mem::replace(&mut young.open, false));
        while self.young.front().is_some_and(|young| !young.open) {
            self.forget_oldest();
        }
        counts
    }

    fn forget_oldest(&mut self) {
        self.young.pop_front();
        self.oldest += 1;
    }

    /// A call was let in: by an answer, or by silence.
    pub(super) fn acked(&mut self, flight: Flight, answered: bool, known: bool) {
        if flight.seq > self.peak_from {
            self.peak = self.peak.max(flight.n);
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
            let most = if known { twice } else { twice.min(FREE.max(flight.n.saturating_add(STEP))) };
            self.size = self.size.max(most);
        }
    }

    /// A call succeeded.
    pub(super) fn success(&mut self, flight: Flight) {
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

    /// A slot is free again.
    pub(super) fn left(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Whether what we know speaks against a bare refusal of this call being about how many at once.
    pub(super) fn refutes(&self, flight: Flight) -> bool {
        self.learned && (flight.n < self.peak || (self.since < TWICE && !flight.probe))
    }

    /// What was let in before this episode says nothing any more.
    pub(super) fn forget_peak(&mut self, last: u64) {
        self.peak = 0;
        self.peak_from = last;
    }

    /// Too many at once: what still stands is what the server takes. The refused call has left already.
    pub(super) fn lower(&mut self, flight: Flight, last: u64) {
        let first = !self.learned;
        self.learned = true;
        let standing = self.in_flight.max(1);
        let later = flight.seq <= self.low;
        if later && standing >= self.size {
            return;
        }
        if !later && flight.probe && self.probing {
            self.size = self.floor; // a failed probe
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

    /// Nothing was asked for a long time: what was not learned from refusals begins anew.
    pub(super) fn rested(&mut self) {
        if !self.learned {
            self.size = self.initial;
        }
    }
}
