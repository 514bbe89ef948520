//! Updates of the controllers of a key and its account, and the delivery of their events.
//!
//! Every change of a key goes through here, so each event is delivered when it happens. All keys are updated first, then the
//! callback runs. A callback that panics leaves no key in a wrong state.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::call::Call;
use super::config::Shared;
use crate::event::QuotaEvent;
use crate::quota::{Controller, Member, PendingEvents};
use crate::request::QuotaKey;
use crate::response::error_reply::ErrorReply;
use crate::trace;
use crate::wait_queue::{Permit, WaitQueue};

impl<C> Call<C> {
    /// Logs why the call waits.
    pub(super) fn trace_wait(&self) {
        let (now, queued) = (Instant::now(), self.controller.queued());
        self.controller.read(|controller| {
            let left =
                controller.until().map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero());
            let (in_flight, window) = (controller.in_flight(), controller.window());
            let cause = match left {
                Some(_) => "cooldown",
                None if in_flight >= window => "window",
                None => "pace",
            };
            trace::waiting(cause, left, in_flight, window, queued);
        });
    }

    /// Updates the call's controller.
    pub(super) fn update_quota<T>(&self, event: impl FnOnce(&mut Controller, Instant) -> T) -> T {
        self.shared.update_quota((self.key, self.account), &self.controller, event)
    }

    /// Delivers the events of the call's key that happened while the call waited.
    pub(super) fn deliver_events(&self) {
        self.update_quota(|_, _| ());
    }

    /// Applies an event that also releases the permit. The callback may panic, so the permit is disarmed first.
    pub(super) fn settle<T>(&self, permit: Permit, event: impl FnOnce(&mut Controller, Instant) -> T) -> T {
        permit.settled();
        self.update_quota(event)
    }
}

impl Shared {
    /// Updates the controller of a key and those of its account, then delivers the events.
    pub(super) fn update_quota<T>(
        &self,
        (key, account): (QuotaKey, QuotaKey),
        controller: &WaitQueue<Controller>,
        event: impl FnOnce(&mut Controller, Instant) -> T,
    ) -> T {
        let (told, events) = update_one(controller, event);
        if let Some(own) = events {
            let mut events = of_key(key, &own);
            if own.contains(&QuotaEvent::Opened) {
                let others = self.quotas.open_account(account, key);
                events.extend(update_all(others, |controller, _| controller.opened_with_account()));
            }
            self.report(&events);
        }
        told
    }

    /// Applies an error that may close the key. `event` returns for how long all keys of its account are closed, too.
    pub(super) fn close_quota(
        &self,
        (key, account): (QuotaKey, QuotaKey),
        controller: &WaitQueue<Controller>,
        reply: ErrorReply,
        event: impl FnOnce(&mut Controller, Instant, &ErrorReply) -> Option<Duration>,
    ) {
        let reply = Arc::new(reply);
        let (wait, events) = update_one(controller, |controller, now| {
            let wait = event(controller, now, &reply);
            controller.remember(&reply);
            wait
        });
        let mut events = events.map_or_else(Vec::new, |events| of_key(key, &events));
        if let Some(wait) = wait {
            let others = self.quotas.close_account(account, key, wait, &reply);
            events.extend(update_all(others, |controller, now| {
                controller.closed_with_account(now, wait);
                controller.remember(&reply);
            }));
        }
        self.report(&events);
    }

    /// Delivers all events. If the callback panics, this call panics after the last event.
    pub(super) fn report(&self, events: &[(QuotaKey, QuotaEvent)]) {
        let mut panicked = None;
        for (key, event) in events {
            trace::event(event);
            if let Some(tell) = &self.config.on_event {
                panicked = panicked.or(catch_unwind(AssertUnwindSafe(|| tell(*key, event))).err());
            }
        }
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
    }
}

fn of_key(key: QuotaKey, events: &[QuotaEvent]) -> Vec<(QuotaKey, QuotaEvent)> {
    events.iter().map(|event| (key, *event)).collect()
}

fn update_one<T>(
    controller: &WaitQueue<Controller>,
    event: impl FnOnce(&mut Controller, Instant) -> T,
) -> (T, PendingEvents) {
    controller.update(|controller, now| (event(controller, now), controller.drain_events()))
}

/// Updates other controllers of the account. Returns their events.
fn update_all(others: Vec<Member>, event: impl Fn(&mut Controller, Instant)) -> Vec<(QuotaKey, QuotaEvent)> {
    let mut events = Vec::new();
    for (key, controller) in others {
        // A key that was forgotten meanwhile has no waiting calls.
        if let Some(controller) = controller.upgrade()
            && let ((), Some(own)) = update_one(&controller, &event)
        {
            events.extend(of_key(key, &own));
        }
    }
    events
}
