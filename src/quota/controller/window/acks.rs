//! Silence as an acknowledgement: which calls the server accepted because no 429 came for them in time.

use std::time::Duration;

use tokio::time::Instant;

use super::{Flight, Window};

/// How long a call is out before its silence counts, at least: 0.5 s. This holds until a 429 has shown how long 429s take.
const ACK: Duration = Duration::from_millis(500);
/// The same at most, after slow 429s: 3 s.
const ACK_MAX: Duration = Duration::from_secs(3);
/// In between, it is this many times the slowest recent 429: 5/4.
const ACK_TIMES: (u32, u32) = (5, 4);
/// Each 429 lowers the time of the slowest one before to this part: 9/10. One slow 429 does not count for ever.
const ACK_KEPT: (u32, u32) = (9, 10);

/// A call whose silence may count.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingAck {
    pub(super) sent: Instant,
    pub(super) flight: Flight,
    /// Neither its response nor its silence has counted.
    pub(super) open: bool,
}

impl Window {
    /// How long a call is out before its silence counts.
    fn ack(&self) -> Duration {
        self.slowest.map_or(ACK, |slowest| (slowest * ACK_TIMES.0 / ACK_TIMES.1).clamp(ACK, ACK_MAX))
    }

    /// When a call was sent that was admitted at this time. `None` while it waits in a limit below.
    pub(in super::super) fn sent_at(&self, seq: u64, admitted: Instant) -> Option<Instant> {
        self.below.get(&seq).map_or(Some(admitted), |sent| *sent)
    }

    /// Notes how long after its call was sent a 429 came.
    pub(in super::super) fn throttle_took(&mut self, time: Duration) {
        let kept = self.slowest.map_or(Duration::ZERO, |slowest| slowest * ACK_KEPT.0 / ACK_KEPT.1);
        self.slowest = Some(kept.max(time.min(ACK_MAX)));
    }

    /// Notes that a call waits in a limit below: it has not been sent, so its silence says nothing.
    pub(in super::super) fn waits_below(&mut self, seq: u64) {
        self.close(seq);
        self.below.insert(seq, None);
    }

    /// Notes that a call that waited in a limit below is sent. Its silence still does not count.
    pub(in super::super) fn sent_from_below(&mut self, seq: u64, now: Instant) {
        if let Some(sent) = self.below.get_mut(&seq) {
            *sent = Some(now);
        }
    }

    /// Whether an admitted call still waits in a limit below.
    pub(in super::super) fn is_below(&self, seq: u64) -> bool {
        self.below.get(&seq).is_some_and(Option::is_none)
    }

    /// Takes the next call whose silence counts by now.
    pub(in super::super) fn silent(&mut self, now: Instant) -> Option<Flight> {
        let ack = self.ack();
        while let Some(pending) = self.pending.front().copied() {
            if now < pending.sent + ack {
                return None;
            }
            self.forget_oldest();
            if pending.open {
                return Some(pending.flight);
            }
        }
        None
    }

    /// When the next silence is due.
    pub(in super::super) fn next_silence(&self) -> Option<Instant> {
        self.pending.iter().find(|pending| pending.open).map(|pending| pending.sent + self.ack())
    }

    /// Makes the silence of a call not count. Returns false if it has counted already.
    pub(in super::super) fn close(&mut self, seq: u64) -> bool {
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
}
