//! What calls took of a bucket between two snapshots.

use super::{BucketEstimate, Sent, Shown, as_of};

/// What calls took is known well if it is this part of the bucket. Figures are rounded, and some are late.
const TELLING: f64 = 0.25;

/// What the calls between two snapshots took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) struct Taken {
    /// What they took of the bucket.
    pub(in super::super) taken: f64,
    /// What their prices were.
    pub(in super::super) counted: f64,
    /// How many they were.
    pub(in super::super) calls: f64,
    /// How much this tells: 1 and more is known well.
    pub(in super::super) weight: f64,
}

impl BucketEstimate {
    /// What was taken between the accepted snapshot and this one. `None` if the figures do not tell it.
    pub(in super::super) fn taken(&self, now: f64, sent: Sent, shown: Shown) -> Option<Taken> {
        if sent.seq <= self.accepted.call.seq || shown.reset.is_none() {
            return None; // an earlier call's, or the rate is a guess
        }
        let available = self.accepted.remaining + self.rate * (as_of(now, sent) - self.accepted.as_of);
        if available > self.cap {
            return None; // the refill that a full bucket lost would be missing from what was taken
        }
        taken_between(available, self.accepted.call, sent, self.cap, shown.remaining)
    }

    /// What was taken before the first snapshot of a key, if its bucket was full before its first call. Calls of other
    /// clients count as ours, so this is an upper bound.
    pub(in super::super) fn taken_since_full(sent: Sent, shown: Shown) -> Option<Taken> {
        shown.reset?;
        let before = Sent { spent: 0.0, calls: 0.0, ..sent };
        taken_between(shown.limit, before, sent, shown.limit, shown.remaining)
    }
}

/// What the calls after `before`, up to `sent`, took of a bucket that held `available` and has `remaining` left.
fn taken_between(available: f64, before: Sent, sent: Sent, cap: f64, remaining: f64) -> Option<Taken> {
    let (counted, calls) = (sent.spent - before.spent, sent.calls - before.calls);
    let taken = available - remaining;
    // An empty bucket may be in debt, so that more was taken than it shows. Less than nothing is taken if calls waited on
    // their way to the server.
    let told = remaining > 0.0 && taken > 0.0 && calls > 0.0;
    told.then(|| Taken { taken, counted, calls, weight: f64::max(counted, taken) / (TELLING * cap) })
}
