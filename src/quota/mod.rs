//! May this key send now? What we believe about the server's buckets, its cap on what runs at once, and its cooldown.
//!
//! [`Quotas`] is the handle of a layer's state: one controller for each [`QuotaKey`]. A controller's rules are a pure core: what each
//! event does to it is a function of its state, the event and `now`. Its parts, from the inside out:
//!
//! * `level`: one bucket of the server's, read from `x-ratelimit-*` headers: how much it holds, how fast it fills
//! * `window`: how many calls at once
//! * `correction`: how much of an estimated token the server really takes
//! * `learned_rate`: a rate learned from 429s, for limits that no header shows
//! * `attribution`: what a 429 is evidence of, once an episode
//! * `call_specific`: 429s that concern one call alone
//! * `cooldown`: not before, and the key that is closed
//! * `probe`: when a call goes although what is believed speaks against it
//! * `controller`: composes them
//! * `registry`: the controllers by key
//! * `account`: keys that share a plan, and what is known of it

mod account;
mod config;
mod controller;
mod registry;

use std::sync::Arc;

use tokio::time::Instant;

use crate::request::QuotaKey;
use crate::response::error_reply::ErrorReply;
use crate::wait_queue::{Closed, QueuePosition, WaitQueue};
pub(crate) use config::ControllerConfig;
pub use config::{DEFAULT_INITIAL_WINDOW, DEFAULT_MAX_WAIT, PacingConfig};
pub(crate) use controller::{CallInfo, Controller, PendingEvents, Ticket};
pub(crate) use registry::{Found, Member, Origin};
pub use registry::{KeySnapshot, MAX_KEYS, Quotas};

/// In a request's extensions, for each attempt: its position, its key, and the controller that let it go.
///
/// A limit below queues under the same position, and looks at the controller once more when the call had to wait there.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    pub(crate) position: QueuePosition,
    pub(crate) key: QuotaKey,
    pub(crate) controller: Arc<WaitQueue<Controller>>,
    pub(crate) seq: u64,
}

/// Whether a call that was let go may still go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clearance {
    Clear,
    Until(Instant),
    Closed(Closed),
}

impl Admitted {
    /// The call queues below the controller: that no answer comes says nothing of the server.
    pub(crate) fn queued_below(&self) {
        self.controller.update(|controller, _| controller.queued_below(self.seq));
    }

    /// The call goes from below.
    pub(crate) fn sent(&self) {
        self.controller.update(|controller, now| controller.sent_from_below(now, self.seq));
    }

    pub(crate) fn clearance(&self, now: Instant) -> Clearance {
        self.controller.read(|controller| controller.clearance(now, self.seq))
    }

    /// What the server said when the quota was used up.
    pub(crate) fn closed_by(&self) -> Option<Arc<ErrorReply>> {
        self.controller.read(Controller::closed_by)
    }
}
