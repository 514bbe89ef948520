//! Lends the permits of unread response bodies when a call lacks only permits.

use tokio::time::Instant;

use super::permit::BodyState;
use super::policy::{AdmissionPolicy, Decision};
use super::state::State;

impl<R: AdmissionPolicy> State<R> {
    /// Decides on the next call. If only permits are missing and enough bodies have been unread for too long, their
    /// permits are lent. No more are lent than the call needs.
    pub(super) fn decide_or_lend(&mut self, now: Instant, call: &R::Call, ahead: usize) -> Decision {
        match self.policy.decide(now, call, ahead) {
            Decision::Blocked(_) if self.can_lend(now, ahead) => {
                for _ in 0..self.policy.missing_permits(now, ahead) {
                    self.unread.lend();
                    self.policy.lend_permit();
                }
                self.policy.decide(now, call, ahead)
            }
            Decision::Blocked(at) => {
                let due = self.unread.due(self.policy.missing_permits(now, ahead));
                Decision::Blocked(due.map_or(at, |due| due.min(at)))
            }
            next => next,
        }
    }

    /// Returns true if enough permits may be lent.
    pub(super) fn can_lend(&self, now: Instant, ahead: usize) -> bool {
        self.unread.due(self.policy.missing_permits(now, ahead)).is_some_and(|due| due <= now)
    }

    /// Ends a permit.
    pub(super) fn end(&mut self, now: Instant, seq: u64, body: BodyState) {
        let lent = match body {
            BodyState::Awaited { .. } | BodyState::Read => false,
            BodyState::Unread(key) => !self.unread.remove(key),
            BodyState::Lent => true,
        };
        if lent { self.policy.release_lent(now, seq) } else { self.policy.release(now, seq) }
    }
}
