//! What closes a key within a success, what it is told while it is closed, and what opens it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Gate, QUOTA_PROBE};
use crate::classify::{Kind, Verdict};
use crate::event::Event;
use crate::quota::controller::attribution::{Cause, Class};
use crate::quota::controller::cooldown::Why;
use crate::response::error_reply::ErrorReply;

impl Gate {
    /// An error within a success: the key cools down, once an episode. What it says of rates is not learned from: the call
    /// had been let in. Tells for how long all other keys of the account are to be closed, too.
    pub(crate) fn heard(&mut self, now: Instant, seq: u64, verdict: &Verdict) -> Option<Duration> {
        self.silences(now);
        if verdict.kind == Kind::QuotaExhausted {
            let why = if verdict.account { Why::Account } else { Why::Quota };
            return self.shut(now, QUOTA_PROBE, why, seq).filter(|_| verdict.account);
        }
        if verdict.is_throttling() {
            let class = if verdict.kind == Kind::Overloaded { Class::Overload } else { Class::Rate };
            let judged = self.blame.judge(seq, self.seq, class, false);
            self.cool_down(now, seq, verdict.stated(), class, Cause::Rate, judged.new);
        }
        None
    }

    /// The body of a 2xx holds no error: if the call was a probe, the key is open.
    pub(crate) fn no_error(&mut self, seq: u64) {
        if self.cooldown.success(seq) {
            self.closed_by = None;
            self.report(Event::Opened);
        }
    }

    /// Whether the key is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.cooldown.is_shut()
    }

    /// What the server said when the quota was used up, while the key is closed.
    pub(crate) fn closed_by(&self) -> Option<Arc<ErrorReply>> {
        self.closed_by.clone().filter(|_| self.is_closed())
    }

    /// Keeps what the server said when the quota was used up.
    pub(crate) fn remember(&mut self, reply: &Arc<ErrorReply>) {
        self.closed_by = Some(Arc::clone(reply));
    }
}
