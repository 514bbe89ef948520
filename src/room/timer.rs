//! The room's one timer: made in a waiter's poll, moved from anywhere, rung through a waker that is the room itself.
//!
//! A tokio `Sleep` belongs to the runtime that made it. When that runtime shuts down, it rings before its time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// How far ahead a timer is set that has nothing to wait for: it only has to exist, to be moved from elsewhere.
const RESTING: Duration = Duration::from_secs(3600);

/// What is rung when the timer fires.
pub(super) trait Bell: Send + Sync {
    fn ring(&self);
}

/// A waker that holds nobody alive.
struct Rope(Weak<dyn Bell>);

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        if let Some(bell) = self.0.upgrade() {
            bell.ring();
        }
    }
}

#[derive(Default)]
pub(super) struct Timer {
    armed: Option<Box<Armed>>, // only while calls wait
}

struct Armed {
    sleep: Pin<Box<Sleep>>,
    at: Instant,
    /// It has fired: its waker is gone, so it has to be polled again once it is moved.
    spent: bool,
    waker: Waker,
}

impl Timer {
    /// Makes the timer if there is none.
    ///
    /// # Panics
    ///
    /// As [`tokio::time::sleep_until`]: outside a runtime with time enabled.
    pub(super) fn ensure<B: Bell + 'static>(&mut self, now: Instant, bell: &Weak<B>) {
        if self.armed.is_none() {
            let bell: Weak<dyn Bell> = Weak::<B>::clone(bell);
            let at = now + RESTING;
            let sleep = Box::pin(tokio::time::sleep_until(at));
            let mut armed = Box::new(Armed { sleep, at, spent: true, waker: Waker::from(Arc::new(Rope(bell))) });
            if armed.register() {
                self.armed = Some(armed);
            }
        }
    }

    /// Whether there is one.
    pub(super) fn is_made(&self) -> bool {
        self.armed.is_some()
    }

    /// Whether the bell rang because the time has come. False: before its time.
    pub(super) fn fired(&mut self, now: Instant) -> bool {
        let Some(armed) = &mut self.armed else { return true };
        armed.spent = armed.at <= now;
        armed.spent
    }

    /// Takes the timer out of use; what is returned is to be dropped outside the lock.
    pub(super) fn discard(&mut self) -> Option<impl Sized + use<>> {
        self.armed.take()
    }

    /// Sees to it that the bell rings at `due`, or a little before. False: there is no timer, and one is needed.
    pub(super) fn aim(&mut self, now: Instant, due: Option<Instant>, wanted: bool) -> bool {
        if due.is_none() && !wanted {
            // Never kept for others: a fired one belongs to nobody, and the runtime of one that has not fired may not be
            // driven any more when the next call waits, which would then wait for ever.
            self.armed = None;
            return true;
        }
        let Some(armed) = &mut self.armed else { return due.is_none() };
        let at = due.unwrap_or(now + RESTING);
        if armed.spent || at < armed.at {
            armed.at = at;
            armed.sleep.as_mut().reset(at);
            if armed.spent && !armed.register() {
                self.armed = None;
                return false;
            }
        }
        true
    }
}

impl Armed {
    /// Polls once, to leave the waker. False: its runtime is gone.
    fn register(&mut self) -> bool {
        self.spent = false;
        let mut cx = Context::from_waker(&self.waker);
        let sleep = self.sleep.as_mut();
        // A runtime that shuts down between two lines of ours makes this poll panic, in a task that has nothing to do
        // with it.
        match catch_unwind(AssertUnwindSafe(|| sleep.poll(&mut cx))) {
            Ok(poll) => {
                if poll.is_ready() {
                    self.waker.wake_by_ref(); // due already: the bell is answered after the lock is released
                }
                true
            }
            Err(_) => false,
        }
    }
}
