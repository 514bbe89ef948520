//! A slot of a room, for as long as an attempt and its answer's body last.

use std::sync::Arc;

use tokio::time::Instant;

use super::{ANY_TIME, Room, Rule};

/// Where a slot is given back to, whatever the rule behind it.
pub(crate) trait Release: Send + Sync {
    fn release(&self, seq: u64);
    /// The same at the end of an answer whose head was told of: the clock is read if that end was waited for, or if
    /// somebody waits for the slot.
    fn over(&self, seq: u64, waited: bool);
    fn used(&self, estimated: f64, used: f64);
}

impl<R: Rule> Release for Room<R> {
    fn release(&self, seq: u64) {
        self.tell(|rule, now| rule.ended(Some(now), seq));
    }

    fn over(&self, seq: u64, waited: bool) {
        let mut state = self.lock();
        let now = ((R::CLOCK && waited) || state.queue.len() > 0).then(Instant::now);
        state.rule.ended(now, seq);
        self.finish(state, now.unwrap_or(*ANY_TIME));
    }

    fn used(&self, estimated: f64, used: f64) {
        self.tell(|rule, _| rule.used(estimated, used));
    }
}

/// No admission has this number.
const SETTLED: u64 = 0;

/// A slot that is given back when it is dropped: `(room, seq)`, for either rule.
#[must_use = "the slot is free again as soon as this is dropped"]
pub(crate) struct Slot {
    room: Arc<dyn Release>,
    seq: u64,
}

impl Slot {
    pub(crate) fn new(room: Arc<dyn Release>, seq: u64) -> Self {
        Self { room, seq }
    }

    /// Tells the room what the call has used.
    pub(crate) fn used(&self, estimated: f64, used: f64) {
        self.room.used(estimated, used);
    }

    /// Gives it back at the end of an answer's body, which came at once or was waited for.
    #[inline]
    pub(crate) fn over(mut self, waited: bool) {
        let seq = std::mem::replace(&mut self.seq, SETTLED);
        self.room.over(seq, waited);
    }

    /// Lets go of the slot without giving it back: its books are settled already.
    pub(crate) fn settled(mut self) {
        self.seq = SETTLED;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.seq != SETTLED {
            self.room.release(self.seq);
        }
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("seq", &self.seq).finish_non_exhaustive()
    }
}
