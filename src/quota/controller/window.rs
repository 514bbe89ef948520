//! How many calls at once: doubled by silence, and after a concurrency 429 what still stands, then probed upwards.
//!
//! 429s come sooner than successes, so a call that has been out for longer than 429s take was let in.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::wait_queue::Lent;

/// A call without an answer for this long counts as let in, until a 429 has shown how long 429s take: 0.5 s.
pub(super) const ACK: Duration = Duration::from_millis(500);
/// ... and at most for this long after slow 429s: 3 s.
const ACK_MAX: Duration = Duration::from_secs(3);
/// After a 429, a call counts as let in when it has been out for 5/4 of the slowest recent 429.
const ACK_TIMES: (u32, u32) = (5, 4);
/// Each 429 lets the slowest one count for a tenth less.
const ACK_KEPT: (u32, u32) = (9, 10);
/// Until the first answer has come, silence doubles the window up to here; from here on it adds [`STEP`] at a time.
const FREE: u32 = 64;
const STEP: u32 = 32;
/// How many successes at a full window it takes to try one more; doubled by each failed try, up to the maximum.
const PROBE_MIN: u32 = 10;
const PROBE_MAX: u32 = 40;
/// A concurrency 429 within so many successes of the last one was about something else.
const TWICE: u32 = 3;

/// One dispatch, as the window knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) seq: u64,
    /// How many were in flight when it went, itself included.
    pub(super) n: u32,
    /// How many permits were lent then: whether the server still counts their calls is not known.
    pub(super) lent: u32,
    /// It went above the size that is known to be good.
    pub(super) probe: bool,
    /// It went above the window, since the window alone held the queue back.
    pub(super) above: bool,
}

#[derive(Debug, Clone, Copy)]
struct PendingAck {
    sent: Instant,
    above: bool,
    n: u32,
    lent: u32,
    probe: bool,
    open: bool,
}

#[derive(Debug)]
pub(super) struct Window {
    in_flight: u32,
    /// Admitted calls whose bodies nobody reads: they do not count as in flight.
    pub(super) lent: Lent,
    size: u32,
    initial: u32,
    learned: bool,
    /// An answer has come that is no 429.
    answered: bool,
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
    /// From the oldest dispatch that is still out and whose silence has not counted, by number, without gaps.
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

    /// Whether 429s have shown how many at once the server takes.
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

    /// How many fewer would have to be out for one more to fit.
    pub(super) fn missing(&self, ahead: usize) -> usize {
        (self.in_flight as usize).saturating_add(ahead).saturating_add(1).saturating_sub(self.size as usize)
    }

    /// Nobody reads the body of a call: it no longer counts as in flight.
    pub(super) fn lend(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.lent.lend();
    }

    pub(super) fn sent(&mut self, seq: u64, now: Instant) -> Flight {
        self.in_flight = self.in_flight.saturating_add(1);
        let probe = self.probing && self.in_flight > self.floor;
        let above = self.in_flight > self.size;
        let flight = Flight { seq, n: self.in_flight, lent: self.lent.count(), probe, above };
        if self.pending.is_empty() {
            self.oldest = seq;
        }
        self.pending.push_back(PendingAck { sent: now, above, n: flight.n, lent: flight.lent, probe, open: true });
        flight
    }

    /// How long a call is out before its silence counts.
    fn ack(&self) -> Duration {
        self.slowest.map_or(ACK, |slowest| (slowest * ACK_TIMES.0 / ACK_TIMES.1).clamp(ACK, ACK_MAX))
    }

    /// When a call was sent that was admitted at this moment; nothing if it waits in a limit below.
    pub(super) fn sent_at(&self, seq: u64, admitted: Instant) -> Option<Instant> {
        self.below.get(&seq).map_or(Some(admitted), |sent| *sent)
    }

    /// A 429 has come so long after its call was sent.
    pub(super) fn throttle_took(&mut self, time: Duration) {
        let kept = self.slowest.map_or(Duration::ZERO, |slowest| slowest * ACK_KEPT.0 / ACK_KEPT.1);
        self.slowest = Some(kept.max(time.min(ACK_MAX)));
    }

    /// A call waits in a limit below: its silence says nothing of the server.
    pub(super) fn waits_below(&mut self, seq: u64) {
        self.close(seq);
        self.below.insert(seq, None);
    }

    /// A call that waited in a limit below is sent.
    pub(super) fn sent_from_below(&mut self, seq: u64, now: Instant) {
        if let Some(sent) = self.below.get_mut(&seq) {
            *sent = Some(now);
        }
    }

    /// Whether a call has been admitted here and not been sent, since it waits in a limit below.
    pub(super) fn is_below(&self, seq: u64) -> bool {
        self.below.get(&seq).is_some_and(Option::is_none)
    }

    /// The next call whose silence counts.
    pub(super) fn silent(&mut self, now: Instant) -> Option<Flight> {
        let ack = self.ack();
        while let Some(pending) = self.pending.front().copied() {
            if now < pending.sent + ack {
                return None;
            }
            let seq = self.oldest;
            self.forget_oldest();
            if pending.open {
                return Some(Flight {
                    seq,
                    n: pending.n,
                    lent: pending.lent,
                    probe: pending.probe,
                    above: pending.above,
                });
            }
        }
        None
    }

    /// When the next silence is due.
    pub(super) fn next_silence(&self) -> Option<Instant> {
        self.pending.iter().find(|pending| pending.open).map(|pending| pending.sent + self.ack())
    }

    /// Takes a call out of those whose silence would count. False: it counted already.
    pub(super) fn close(&mut self, seq: u64) -> bool {
        let Some(index) = seq.checked_sub(self.oldest) else { return false };
        let pending = usize::try_from(index).ok().and_then(|index| self.pending.get_mut(index));
        let counts = pending.is_some_and(|pending| std::mem::replace(&mut pending.open, false));
        while self.pending.front().is_some_and(|pending| !pending.open) {
            self.forget_oldest();
        }
        counts
    }

    fn forget_oldest(&mut self) {
        self.pending.pop_front();
        self.oldest += 1;
    }

    /// A call was let in: by an answer, or by silence.
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
            // An answer shows whether the server tells its limits. Before, a burst may be throttled as a whole.
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

    /// A permit is free again.
    pub(super) fn left(&mut self, seq: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.below.remove(&seq);
    }

    /// Whether what we know speaks against a bare 429 of this call being about how many at once.
    pub(super) fn refutes(&self, flight: Flight) -> bool {
        let n = flight.n.saturating_add(flight.lent);
        self.learned && !flight.above && (n < self.peak || (self.since < TWICE && !flight.probe))
    }

    /// What was let in before this episode says nothing any more.
    pub(super) fn forget_peak(&mut self, last: u64) {
        self.peak = 0;
        self.peak_from = last;
    }

    /// Too many at once: what still stands is what the server takes, lent permits included. The throttled call has left already.
    pub(super) fn lower(&mut self, flight: Flight, last: u64) {
        if flight.above && self.learned {
            return; // more than the window is too many: that was known
        }
        let first = !self.learned;
        self.learned = true;
        let standing = self.in_flight.saturating_add(self.lent.count()).max(1);
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

    /// Nothing was asked for a long time: what was not learned from 429s begins anew.
    pub(super) fn rested(&mut self) {
        if !self.learned {
            self.size = self.initial;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_429_does_not_lower_the_window_below_what_is_in_flight_and_lent() {
        let now = Instant::now();
        let mut window = Window::new(16);
        let flights: Vec<_> = (1..=6).map(|seq| window.sent(seq, now)).collect();
        (0..3).for_each(|_| window.lend());
        assert_eq!((window.in_flight(), window.lent.count()), (3, 3));
        window.left(6); // throttled
        window.lower(flights[5], 6);
        assert_eq!((window.in_flight(), window.size()), (2, 5));
        assert_eq!([0, 1, 3].map(|ahead| window.missing(ahead)), [0, 0, 1]);
        // The server may still count the lent ones: a 429 below the peak may well be about how many at once.
        let seventh = window.sent(7, now);
        assert_eq!((seventh.n, seventh.lent), (3, 3));
        (0..3).for_each(|_| window.lent.returned());
        assert_eq!((window.in_flight(), window.lent.count()), (3, 0));
    }
}
