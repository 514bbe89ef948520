//! Telling a gate what has happened, its account's other gates where it concerns them, and whoever watches.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::time::Instant;

use super::call::Call;
use super::layer::Shared;
use crate::call::QuotaKey;
use crate::classify::Verdict;
use crate::quota::{Gate, Member, News, Ticket};
use crate::report::Event;
use crate::room::{Room, Slot};
use crate::trace;

impl<C> Call<C> {
    /// Tells the call's gate.
    pub(super) fn tell<T>(&self, event: impl FnOnce(&mut Gate, Instant) -> T) -> T {
        let (told, news) = tell(&self.gate, event);
        if let Some(news) = news {
            let mut events = self.events(&news);
            if news.contains(&Event::Opened) {
                let others = self.shared.quotas.open_account(self.account, self.key);
                events.extend(tell_all(others, |gate, _| gate.opened_with_account()));
            }
            self.shared.report(&events);
        }
        told
    }

    /// Tells it what settles the slot's books; a listener may panic, so the slot is let go first.
    pub(super) fn settle<T>(&self, slot: Slot, event: impl FnOnce(&mut Gate, Instant) -> T) -> T {
        slot.settled();
        self.tell(event)
    }

    /// The quota is used up; where it is the account's, none of the account's keys is asked for a while.
    pub(super) fn exhausted(&self, slot: Slot, ticket: &Ticket, verdict: &Verdict) {
        slot.settled();
        let (wait, news) = tell(&self.gate, |gate, now| gate.exhausted(now, ticket, verdict));
        let mut events = news.map_or_else(Vec::new, |news| self.events(&news));
        if let Some(wait) = wait {
            let others = self.shared.quotas.close_account(self.account, self.key, wait);
            events.extend(tell_all(others, |gate, now| gate.closed_with_account(now, wait)));
        }
        self.shared.report(&events);
    }

    fn events(&self, news: &[Event]) -> Vec<(QuotaKey, Event)> {
        news.iter().map(|event| (self.key, *event)).collect()
    }
}

impl Shared {
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
            events.extend(news.iter().map(|event| (key, *event)));
        }
    }
    events
}
