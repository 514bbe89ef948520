//! The timers of a queue: one for each runtime with waiters. A timer is created in a waiter's poll and can be reset
//! from any thread.
//!
//! A tokio `Sleep` fires only while its runtime is driven, and a runtime that shuts down fires it early. Therefore each
//! runtime has its own timer, and all are set to the same time. The first that fires serves all waiters. A timer is
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

/// The time to which an idle timer is set: 1 h. An idle timer exists so that other threads can reset it.
const RESTING: Duration = Duration::from_secs(3600);

/// Receives the firing of a timer.
pub(super) trait TimerTarget: Send + Sync {
    fn on_timer(&self);
}

/// The waker of a timer. It does not keep its target alive.
struct TimerWaker {
    target: Weak<dyn TimerTarget>,
    /// Whether the timer has fired and has not been handled yet.
    fired: AtomicBool,
}

impl Wake for TimerWaker {
    fn wake(self: Arc<Self>) {
        if let Some(target) = self.target.upgrade() {
            self.fired.store(true, Ordering::SeqCst);
            target.on_timer();
        }
    }
}

/// The timers of one queue.
#[derive(Default)]
pub(super) struct Timers {
    timers: HashMap<Id, RuntimeTimer>,
    /// The number of timers created so far.
    made: u64,
}

/// A waiter's share in its runtime's timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    runtime: Id,
    /// The number of the timer. It is needed because a runtime may get the id of one that has ended.
    timer: u64,
}

struct RuntimeTimer {
    sleep: Pin<Box<Sleep>>,
    at: Instant,
    /// Whether the timer has fired. Its waker is then gone, so it must be polled again after a reset.
    spent: bool,
    waker: Arc<TimerWaker>,
    number: u64,
    waiters: usize,
}

impl Timers {
    /// Adds a waiter to the timer of the runtime that polls it, and creates that timer if needed. A waiter that another
    /// runtime polled before moves.
    ///
    /// # Panics
    ///
    /// Panics like [`tokio::time::sleep_until`] outside of a runtime with time enabled, unless the waiter has a timer.
    pub(super) fn join<B: TimerTarget + 'static>(&mut self, now: Instant, share: &mut Option<Share>, target: &Weak<B>) {
        let lives = share.filter(|share| self.has(share));
        let runtime = match (Handle::try_current(), lives) {
            (Ok(handle), _) => handle.id(),
            (Err(_), Some(_)) => return,
            (Err(_), None) => Handle::current().id(), // panics with tokio's message
        };
        if lives.is_some_and(|share| share.runtime == runtime) {
            return;
        }
        if !self.timers.contains_key(&runtime) {
            let target: Weak<dyn TimerTarget> = Weak::<B>::clone(target);
            let Some(timer) = RuntimeTimer::new(now, target, self.made + 1) else { return };
            self.made += 1;
            self.timers.insert(runtime, timer);
        }
        self.leave(share.take());
        if let Some(timer) = self.timers.get_mut(&runtime) {
            timer.waiters += 1;
            *share = Some(Share { runtime, timer: timer.number });
        }
    }

    /// Removes a waiter. The last waiter of a runtime drops the timer, because the runtime may not be driven when the
    /// next waiter comes.
    pub(super) fn leave(&mut self, share: Option<Share>) {
        let Some(share) = share.filter(|share| self.has(share)) else { return };
        if let Some(timer) = self.timers.get_mut(&share.runtime) {
            timer.waiters -= 1;
            if timer.waiters == 0 {
                self.timers.remove(&share.runtime);
            }
        }
    }

    fn has(&self, share: &Share) -> bool {
        self.timers.get(&share.runtime).is_some_and(|timer| timer.number == share.timer)
    }

    /// Returns true if there is a timer.
    pub(super) fn are_made(&self) -> bool {
        !self.timers.is_empty()
    }

    /// Records the timers that have fired. Returns false if one fired early because its runtime shuts down. That timer
    /// is removed.
    pub(super) fn fired(&mut self, now: Instant) -> bool {
        let before = self.timers.len();
        self.timers.retain(|_, timer| {
            let fired = timer.waker.fired.swap(false, Ordering::SeqCst);
            timer.spent |= fired;
            !fired || timer.at <= now
        });
        self.timers.len() == before
    }

    /// Sets all timers to fire at `due` or earlier. Returns false if a timer is needed and there is none.
    pub(super) fn set(&mut self, now: Instant, due: Option<Instant>, wanted: bool) -> bool {
        let at = due.unwrap_or(now + RESTING);
        self.timers.retain(|_, timer| timer.set(at));
        self.are_made() || (due.is_none() && !wanted)
    }
}

impl RuntimeTimer {
    /// Creates a timer. Returns `None` if the runtime is shutting down.
    fn new(now: Instant, target: Weak<dyn TimerTarget>, number: u64) -> Option<Self> {
        let at = now + RESTING;
        let sleep = Box::pin(tokio::time::sleep_until(at));
        let waker = Arc::new(TimerWaker { target, fired: AtomicBool::new(false) });
        let mut timer = Self { sleep, at, spent: true, waker, number, waiters: 0 };
        timer.register().then_some(timer)
    }

    /// Sets the timer to this time, unless it fires earlier. Returns false if its runtime has ended.
    fn set(&mut self, at: Instant) -> bool {
        if !self.spent && at >= self.at {
            return true;
        }
        self.at = at;
        self.sleep.as_mut().reset(at);
        !self.spent || self.register()
    }

    /// Polls the timer once to register its waker. Returns false if its runtime has ended.
    fn register(&mut self) -> bool {
        self.spent = false;
        let waker = Waker::from(Arc::clone(&self.waker));
        let mut cx = Context::from_waker(&waker);
        // The poll is unconstrained, because a task without remaining budget would not register the waker.
        let sleep = pin!(tokio::task::unconstrained(self.sleep.as_mut()));
        // A runtime that shuts down at this point makes the poll panic. The panic must not reach the polling task,
        // which has nothing to do with it.
        match catch_unwind(AssertUnwindSafe(|| sleep.poll(&mut cx))) {
            Ok(poll) => {
                if poll.is_ready() {
                    waker.wake(); // already due: the timer is handled after the lock is released
                }
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
impl Timers {
    /// Returns the number of timers.
    pub(super) fn len(&self) -> usize {
        self.timers.len()
    }

    /// Returns the wakers that the runtimes wake when the timers fire.
    pub(super) fn wakers(&self) -> Vec<Waker> {
        self.timers.values().map(|timer| Waker::from(Arc::clone(&timer.waker))).collect()
    }
}
