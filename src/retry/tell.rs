//! Telling a gate what has happened, its account's other gates where it concerns them, and whoever listens.
//!
//! All that changes a key goes through here, so that each event is delivered when it happens. First all keys are changed,
//! then listeners are called: one that panics leaves no key behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::call::Call;
use super::layer::Shared;
use crate::quota::{Gate, News};
use crate::report::Event;
use crate::request::QuotaKey;
use crate::response::error_reply::ErrorReply;
use crate::room::{Room, Slot};
use crate::trace;

impl<C> Call<C> {
    /// Tells the call's gate.
    pub(super) fn tell<T>(&self, event: impl FnOnce(&mut Gate, Instant) -> T) -> T {
        self.shared.tell(self.key, &self.gate, event)
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
    /// Tells a gate, then whoever listens.
    pub(super) fn tell<T>(&self, key: QuotaKey, gate: &Room<Gate>, event: impl FnOnce(&mut Gate, Instant) -> T) -> T {
        let (told, news) = tell(gate, event);
        if let Some(news) = news {
            let opened = news.contains(&Event::Opened);
            let others =
                if opened { self.tell_siblings(key, |gate, _| gate.opened_with_account()) } else { Vec::new() };
            self.report(key, &news);
            others.iter().for_each(|(key, news)| self.report(*key, news));
        }
        told
    }

    /// Tells a gate of an error that may close it: `event` says for how long all keys of its account are to be closed.
    pub(super) fn tell_error(
        &self,
        key: QuotaKey,
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
        let others = wait.map(|wait| {
            self.tell_siblings(key, |gate, now| {
                gate.closed_with_account(now, wait);
                gate.remember(&reply);
            })
        });
        news.iter().for_each(|news| self.report(key, news));
        others.iter().flatten().for_each(|(key, news)| self.report(*key, news));
    }

    /// Tells the other gates of a key's account.
    fn tell_siblings(&self, key: QuotaKey, event: impl Fn(&mut Gate, Instant)) -> Vec<(QuotaKey, Vec<Event>)> {
        let told = self.quotas.siblings(key).into_iter().map(|(key, gate)| (key, tell(&gate, &event).1));
        told.filter_map(|(key, news)| Some((key, *news?))).collect()
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
