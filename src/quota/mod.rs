//! May a key send now? The beliefs about the server's limits, one controller for each [`QuotaKey`].
//!
//! [`Quotas`] is the handle of a layer's state. `docs/pacing.md` in the package explains the control scheme.
//!
//! * `controller`: all beliefs about one key, as a pure function of state, event and `now`
//! * `registry`: the controllers by key, with a bound on their number
//! * `account`: keys that share a plan or a balance
//! * `config`: the settings of a controller
//! * `state`: the state of a key, as users see it

mod account;
mod config;
mod controller;
mod registry;
mod state;

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
pub use state::{ClosedReason, KeyState};

/// An admission, in the extensions of the request of each attempt.
///
/// A limit below queues the request at the same position. It asks the controller again if the request had to wait there.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    pub(crate) position: QueuePosition,
    pub(crate) key: QuotaKey,
    pub(crate) controller: Arc<WaitQueue<Controller>>,
    pub(crate) seq: u64,
}

/// Whether an admitted call may still be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clearance {
    Clear,
    Until(Instant),
    Closed(Closed),
}

impl Admitted {
    /// The call waits in a limit below, so the missing answer says nothing about the server.
    pub(crate) fn queued_below(&self) {
        self.controller.update(|controller, _| controller.queued_below(self.seq));
    }

    /// The limit below sends the call.
    pub(crate) fn sent(&self) {
        self.controller.update(|controller, now| controller.sent_from_below(now, self.seq));
    }

    pub(crate) fn clearance(&self, now: Instant) -> Clearance {
        self.controller.read(|controller| controller.clearance(now, self.seq))
    }

    /// The server's error when the quota was exhausted.
    pub(crate) fn closed_by(&self) -> Option<Arc<ErrorReply>> {
        self.controller.read(Controller::closed_by)
    }
}
