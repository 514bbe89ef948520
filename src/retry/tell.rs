//! Telling a gate what has happened, its account's other gates where it concerns them, and whoever watches.

use std::time::Duration;

use tokio::time::Instant;

use super::call::Call;
use super::layer::Shared;
use crate::quota::{Gate, News};
use crate::report::Event;
use crate::request::QuotaKey;
use crate::room::{Room, Slot};
use crate::trace;

impl<C> Call<C> {
    /// Tells the call's gate.
    pub(super) fn tell<T>(&self, event: impl FnOnce(&mut Gate, Instant) -> T) -> T {
        let (told, news) = tell(&self.gate, event);
        if let Some(news) = news {
            self.shared.report(self.key, &news);
            if news.contains(&Event::Opened) {
                self.shared.tell_siblings(self.key, |gate, _| gate.opened_with_account());
            }
        }
        told
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

    /// The quota of the call's account is used up: none of its keys is asked for so long.
    pub(super) fn close_account(&self, wait: Duration) {
        self.shared.tell_siblings(self.key, |gate, now| gate.closed_with_account(now, wait));
    }
}

impl Shared {
    fn tell_siblings(&self, key: QuotaKey, event: impl Fn(&mut Gate, Instant)) {
        for (key, gate) in self.quotas.siblings(key) {
            if let ((), Some(news)) = tell(&gate, &event) {
                self.report(key, &news);
            }
        }
    }

    fn report(&self, key: QuotaKey, news: &[Event]) {
        for event in news {
            trace::event(event);
            if let Some(tell) = &self.config.on_event {
                tell(key, event);
            }
        }
    }
}

fn tell<T>(gate: &Room<Gate>, event: impl FnOnce(&mut Gate, Instant) -> T) -> (T, News) {
    gate.tell(|gate, now| (event(gate, now), gate.news()))
}
