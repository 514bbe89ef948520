//! The effects of an error inside a 200, and the state of a closed key.

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
    /// An error inside a 200. The key cools down, once an episode. No rate is learned, because the server had accepted the call.
    /// Returns for how long the other keys of the account are closed, if the whole account is exhausted.
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

    /// The body of a success contains no error. If the call was a probe, the key opens.
    pub(crate) fn on_stream_end(&mut self, seq: u64) {
        if self.cooldown.success(seq) {
            self.closed_by = None;
            self.push_event(QuotaEvent::Opened);
        }
    }

    /// Returns the state that users see.
    pub(crate) fn state(&self, now: Instant) -> KeyState {
        self.cooldown.state(now)
    }

    /// Opens the key and ends its cooldown, so that waiting calls are sent.
    pub(crate) fn forget(&mut self) {
        self.cooldown.forget();
        self.closed_by = None;
    }

    /// Returns whether the key is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.cooldown.is_closed()
    }

    /// Returns the server's error for the exhausted quota, while the key is closed.
    pub(crate) fn closed_by(&self) -> Option<Arc<ErrorReply>> {
        self.closed_by.clone().filter(|_| self.is_closed())
    }

    /// Keeps the server's error for the exhausted quota.
    pub(crate) fn remember(&mut self, reply: &Arc<ErrorReply>) {
        self.closed_by = Some(Arc::clone(reply));
    }
}
