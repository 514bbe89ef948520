//! Telling a gate what has happened, its account's other gates where it concerns them, and whoever listens.
//!
//! All that changes a key goes through here, so that each event is delivered when it happens. First all keys are changed,
//! then listeners are called: one that panics leaves no key behind.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::call::Call;
use super::layer::Shared;
use crate::event::Event;
use crate::quota::{Gate, Member, News};
use crate::request::QuotaKey;
use crate::response::error_reply::ErrorReply;
use crate::trace;
use crate::wait_queue::{Room, Slot};

impl<C> Call<C> {
    /// Tells the call's gate.
    pub(super) fn tell<T>(&self, event: impl FnOnce(&mut Gate, Instant) -> T) -> T {
        self.shared.tell((self.key, self.account), &self.gate, event)
    }

    /// Reports what has happened to the call's key while it waited.
    pub(super) fn report_news(&self) {
        self.tell(|_, _| ());
    }

    /// Tells it what settles the slot's books; a listener may panic, so the slot is let go first.
    pub(super) fn settle<T>(&self, slot: Slot, event: impl FnOnce(&mut Gate, Instant) -> T) -> T {
        slot.settled();
        self.tell(event)
    }
}

impl Shared {
    /// Tells the gate of a key and its account, then whoever listens.
    pub(super) fn tell<T>(
        &self,
        (key, account): (QuotaKey, QuotaKey),
        gate: &Room<Gate>,
        event: impl FnOnce(&mut Gate, Instant) -> T,
    ) -> T {
        let (told, news) = tell(gate, event);
        if let Some(news) = news {
            let mut events = of_key(key, &news);
            if news.contains(&Event::Opened) {
                let others = self.quotas.open_account(account, key);
                events.extend(tell_all(others, |gate, _| gate.opened_with_account()));
            }
            self.report(&events);
        }
        told
    }

    /// Tells a gate of an error that may close it: `event` says for how long all keys of its account are to be closed.
    pub(super) fn tell_error(
        &self,
        (key, account): (QuotaKey, QuotaKey),
        gate: &Room<Gate>,
        reply: ErrorReply,
        event: impl FnOnce(&mut Gate, Instant, &ErrorReply) -> Option<Duration>,
    ) {
        let reply = Arc::new(reply);
        let (wait, news) = tell(gate, |gate, now| {
            let wait = event(gate, now, &reply);
            gate.remember(&reply);
            wait
        });
        let mut events = news.map_or_else(Vec::new, |news| of_key(key, &news));
        if let Some(wait) = wait {
            let others = self.quotas.close_account(account, key, wait, &reply);
            events.extend(tell_all(others, |gate, now| {
                gate.closed_with_account(now, wait);
                gate.remember(&reply);
            }));
        }
        self.report(&events);
    }

    /// Reports all events. If the listener panics, so does this call, afterwards: its gates have been told by then.
    pub(super) fn report(&self, events: &[(QuotaKey, Event)]) {
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

fn of_key(key: QuotaKey, news: &[Event]) -> Vec<(QuotaKey, Event)> {
    news.iter().map(|event| (key, *event)).collect()
}

fn tell<T>(gate: &Room<Gate>, event: impl FnOnce(&mut Gate, Instant) -> T) -> (T, News) {
    gate.tell(|gate, now| (event(gate, now), gate.news()))
}

/// Tells other gates of the account; what they have to report.
fn tell_all(others: Vec<Member>, event: impl Fn(&mut Gate, Instant)) -> Vec<(QuotaKey, Event)> {
    let mut events = Vec::new();
    for (key, gate) in others {
        // One that was forgotten meanwhile has nobody who waits.
        if let Some(gate) = gate.upgrade()
            && let ((), Some(news)) = tell(&gate, &event)
        {
            events.extend(of_key(key, &news));
        }
    }
    events
}
