//! When the permits of unread response bodies are lent: a call could go but for them, and they are due.

use tokio::time::Instant;

use super::permit::BodyState;
use super::{Next, Rule, State};

impl<R: Rule> State<R> {
    /// What the rule says to the call whose turn it is. If only permits are missing, and as many are unread for too long,
    /// they are lent. No more are lent than let this call go.
    pub(super) fn decide(&mut self, now: Instant, ask: &R::Ask, ahead: usize) -> Next {
        match self.rule.next(now, ask, ahead) {
            Next::Park(_) if self.can_lend(now, ahead) => {
                for _ in 0..self.rule.missing(now, ahead) {
                    self.unread.lend();
                    self.rule.lend();
                }
                self.rule.next(now, ask, ahead)
            }
            Next::Park(at) => {
                let due = self.unread.due(self.rule.missing(now, ahead));
                Next::Park(due.map_or(at, |due| due.min(at)))
            }
            next => next,
        }
    }

    /// Whether as many permits may be lent as are missing.
    pub(super) fn can_lend(&self, now: Instant, ahead: usize) -> bool {
        self.unread.due(self.rule.missing(now, ahead)).is_some_and(|due| due <= now)
    }

    /// A permit has ended.
    pub(super) fn end(&mut self, now: Option<Instant>, seq: u64, body: BodyState) {
        let lent = match body {
            BodyState::Awaited { .. } | BodyState::Read => false,
            BodyState::Unread(key) => !self.unread.remove(key),
            BodyState::Lent => true,
        };
        if lent { self.rule.returned(now, seq) } else { self.rule.ended(now, seq) }
    }
}
