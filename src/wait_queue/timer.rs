//! The timers of a room: one for each runtime that has waiters in it, made in a waiter's poll and moved from anywhere.
//!
//! A tokio `Sleep` fires only while its runtime is driven, and a runtime that shuts down fires it early. So each runtime
//! has a timer of its own, all are set to the same time, and whichever fires first decides for all waiters. A timer is
//! dropped with the last waiter of its runtime.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep};

/// How far ahead a timer is set that has nothing to wait for: it only has to exist, to be moved from elsewhere.
const RESTING: Duration = Duration::from_secs(3600);

/// What is rung when a timer fires.
pub(super) trait Bell: Send + Sync {
    fn ring(&self);
}

/// A timer's waker. It holds nobody alive.
struct Rope {
    bell: Weak<dyn Bell>,
    /// The timer has fired and nobody has looked yet.
    pulled: AtomicBool,
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        if let Some(bell) = self.bell.upgrade() {
            self.pulled.store(true, Ordering::SeqCst);
            bell.ring();
        }
    }
}

/// The timers of one room.
#[derive(Default)]
pub(super) struct Timers {
    armed: HashMap<Id, Armed>,
    /// How many timers have been made.
    made: u64,
}

/// A waiter's share in its runtime's timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    runtime: Id,
    /// A runtime may get the id of one that is gone, so each timer has a number, too.
    timer: u64,
}

struct Armed {
    sleep: Pin<Box<Sleep>>,
    at: Instant,
    /// It has fired: its waker is gone, so it has to be polled again once it is moved.
    spent: bool,
    rope: Arc<Rope>,
    number: u64,
    waiters: usize,
}

impl Timers {
    /// Counts a waiter for the runtime that polls it, and makes that runtime's timer if it has none. A waiter that another
    /// runtime polled before moves.
    ///
    /// # Panics
    ///
    /// As [`tokio::time::sleep_until`]: outside a runtime with time enabled, unless the waiter has a timer.
    pub(super) fn join<B: Bell + 'static>(&mut self, now: Instant, share: &mut Option<Share>, bell: &Weak<B>) {
        let lives = share.filter(|share| self.has(share));
        let runtime = match (Handle::try_current(), lives) {
            (Ok(handle), _) => handle.id(),
            (Err(_), Some(_)) => return,
            (Err(_), None) => Handle::current().id(), // panics, and says why
        };
        if lives.is_some_and(|share| share.runtime == runtime) {
            return;
        }
        if !self.armed.contains_key(&runtime) {
            let bell: Weak<dyn Bell> = Weak::<B>::clone(bell);
            let Some(armed) = Armed::new(now, bell, self.made + 1) else { return };
            self.made += 1;
            self.armed.insert(runtime, armed);
        }
        self.leave(share.take());
        if let Some(armed) = self.armed.get_mut(&runtime) {
            armed.waiters += 1;
            *share = Some(Share { runtime, timer: armed.number });
        }
    }

    /// A waiter that does not wait any more. The last one of a runtime takes the timer along: the runtime may not be driven
    /// when the next waiter comes.
    pub(super) fn leave(&mut self, share: Option<Share>) {
        let Some(share) = share.filter(|share| self.has(share)) else { return };
        if let Some(armed) = self.armed.get_mut(&share.runtime) {
            armed.waiters -= 1;
            if armed.waiters == 0 {
                self.armed.remove(&share.runtime);
            }
        }
    }

    fn has(&self, share: &Share) -> bool {
        self.armed.get(&share.runtime).is_some_and(|armed| armed.number == share.timer)
    }

    /// Whether there is one.
    pub(super) fn are_made(&self) -> bool {
        !self.armed.is_empty()
    }

    /// Notes which timers have fired. False: one fired before its time, because its runtime shuts down; it is gone.
    pub(super) fn fired(&mut self, now: Instant) -> bool {
        let before = self.armed.len();
        self.armed.retain(|_, armed| {
            let fired = armed.rope.pulled.swap(false, Ordering::SeqCst);
            armed.spent |= fired;
            !fired || armed.at <= now
        });
        self.armed.len() == before
    }

    /// Sees to it that the bell rings at `due`, or a little before. False: there is no timer, and one is needed.
    pub(super) fn aim(&mut self, now: Instant, due: Option<Instant>, wanted: bool) -> bool {
        let at = due.unwrap_or(now + RESTING);
        self.armed.retain(|_, armed| armed.aim(at));
        self.are_made() || (due.is_none() && !wanted)
    }
}

impl Armed {
    /// None: the runtime is shutting down.
    fn new(now: Instant, bell: Weak<dyn Bell>, number: u64) -> Option<Self> {
        let at = now + RESTING;
        let sleep = Box::pin(tokio::time::sleep_until(at));
        let rope = Arc::new(Rope { bell, pulled: AtomicBool::new(false) });
        let mut armed = Self { sleep, at, spent: true, rope, number, waiters: 0 };
        armed.register().then_some(armed)
    }

    /// Sets it to this time, unless it fires earlier anyway. False: its runtime is gone.
    fn aim(&mut self, at: Instant) -> bool {
        if !self.spent && at >= self.at {
            return true;
        }
        self.at = at;
        self.sleep.as_mut().reset(at);
        !self.spent || self.register()
    }

    /// Polls once, to leave the waker. False: its runtime is gone.
    fn register(&mut self) -> bool {
        self.spent = false;
        let waker = Waker::from(Arc::clone(&self.rope));
        let mut cx = Context::from_waker(&waker);
        // Not as a part of the task that happens to poll: one that has used up its budget would leave no waker.
        let sleep = pin!(tokio::task::unconstrained(self.sleep.as_mut()));
        // A runtime that shuts down between two lines of ours makes this poll panic, in a task that has nothing to do
        // with it.
        match catch_unwind(AssertUnwindSafe(|| sleep.poll(&mut cx))) {
            Ok(poll) => {
                if poll.is_ready() {
                    waker.wake(); // due already: the bell is answered after the lock is released
                }
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
impl Timers {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.armed.len()
    }

    /// What their runtimes wake when they fire.
    pub(super) fn wakers(&self) -> Vec<Waker> {
        self.armed.values().map(|armed| Waker::from(Arc::clone(&armed.rope))).collect()
    }
}
