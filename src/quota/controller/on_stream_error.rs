//! What closes a key within a success, what it is told while it is closed, and what opens it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Controller, QUOTA_PROBE};
use crate::classify::{Kind, Verdict};
use crate::event::QuotaEvent;
use crate::quota::controller::attribution::Class;
use crate::quota::state::{ClosedReason, KeyState};
use crate::response::error_reply::ErrorReply;

impl Controller {
    /// An error within a success: the key cools down, once an episode. What it says of rates is not learned from: the call
    /// had been let in. Tells for how long all other keys of the account are to be closed, too.
    pub(crate) fn on_stream_error(&mut self, now: Instant, seq: u64, verdict: &Verdict) -> Option<Duration> {
        self.expire_acks(now);
        if verdict.kind == Kind::QuotaExhausted {
            let why = if verdict.account { ClosedReason::Account } else { ClosedReason::Quota };
            return self.close(now, QUOTA_PROBE, why, seq).filter(|_| verdict.account);
        }
        if verdict.is_throttling() {
            let class = if verdict.kind == Kind::Overloaded { Class::Overload } else { Class::Rate };
            let attributed = self.attribution.attribute(seq, self.seq, class, false);
            self.cool_down(now, seq, verdict.stated(), attributed);
        }
        None
    }

    /// The body of a 2xx holds no error: if the call was a probe, the key is open.
    pub(crate) fn on_stream_end(&mut self, seq: u64) {
        if self.cooldown.success(seq) {
            self.closed_by = None;
            self.push_event(QuotaEvent::Opened);
        }
    }

    /// The state that users see.
    pub(crate) fn state(&self, now: Instant) -> KeyState {
        self.cooldown.state(now)
    }

    /// Opens the key and ends its cooldown, because its state is forgotten: calls that wait for it may go.
    pub(crate) fn forget(&mut self) {
        self.cooldown.forget();
        self.closed_by = None;
    }

    /// Whether the key is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.cooldown.is_closed()
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
