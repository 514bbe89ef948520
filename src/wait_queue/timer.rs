//! The timers of a queue: one for each runtime that has waiters in it, made in a waiter's poll and moved from anywhere.
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
pub(super) trait TimerTarget: Send + Sync {
    fn on_timer(&self);
}

/// A timer's waker. It holds nobody alive.
struct TimerWaker {
    target: Weak<dyn TimerTarget>,
    /// The timer has fired and nobody has looked yet.
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

struct RuntimeTimer {
    sleep: Pin<Box<Sleep>>,
    at: Instant,
    /// It has fired: its waker is gone, so it has to be polled again once it is moved.
    spent: bool,
    waker: Arc<TimerWaker>,
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
    pub(super) fn join<B: TimerTarget + 'static>(&mut self, now: Instant, share: &mut Option<Share>, target: &Weak<B>) {
        let lives = share.filter(|share| self.has(share));
        let runtime = match (Handle::try_current(), lives) {
            (Ok(handle), _) => handle.id(),
            (Err(_), Some(_)) => return,
            (Err(_), None) => Handle::current().id(), // panics, and says why
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

    /// A waiter that does not wait any more. The last one of a runtime takes the timer along: the runtime may not be driven
    /// when the next waiter comes.
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

    /// Whether there is one.
    pub(super) fn are_made(&self) -> bool {
        !self.timers.is_empty()
    }

    /// Notes which timers have fired. False: one fired before its time, because its runtime shuts down; it is gone.
    pub(super) fn fired(&mut self, now: Instant) -> bool {
        let before = self.timers.len();
        self.timers.retain(|_, timer| {
            let fired = timer.waker.fired.swap(false, Ordering::SeqCst);
            timer.spent |= fired;
            !fired || timer.at <= now
        });
        self.timers.len() == before
    }

    /// Sees to it that the target rings at `due`, or a little before. False: there is no timer, and one is needed.
    pub(super) fn set(&mut self, now: Instant, due: Option<Instant>, wanted: bool) -> bool {
        let at = due.unwrap_or(now + RESTING);
        self.timers.retain(|_, timer| timer.set(at));
        self.are_made() || (due.is_none() && !wanted)
    }
}

impl RuntimeTimer {
    /// None: the runtime is shutting down.
    fn new(now: Instant, target: Weak<dyn TimerTarget>, number: u64) -> Option<Self> {
        let at = now + RESTING;
        let sleep = Box::pin(tokio::time::sleep_until(at));
        let waker = Arc::new(TimerWaker { target, fired: AtomicBool::new(false) });
        let mut timer = Self { sleep, at, spent: true, waker, number, waiters: 0 };
        timer.register().then_some(timer)
    }

    /// Sets it to this time, unless it fires earlier anyway. False: its runtime is gone.
    fn set(&mut self, at: Instant) -> bool {
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
        let waker = Waker::from(Arc::clone(&self.waker));
        let mut cx = Context::from_waker(&waker);
        // Not as a part of the task that happens to poll: one that has used up its budget would leave no waker.
        let sleep = pin!(tokio::task::unconstrained(self.sleep.as_mut()));
        // A runtime that shuts down between two lines of ours makes this poll panic, in a task that has nothing to do
        // with it.
        match catch_unwind(AssertUnwindSafe(|| sleep.poll(&mut cx))) {
            Ok(poll) => {
                if poll.is_ready() {
                    waker.wake(); // due already: the target is answered after the lock is released
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
        self.timers.len()
    }

    /// What their runtimes wake when they fire.
    pub(super) fn wakers(&self) -> Vec<Waker> {
        self.timers.values().map(|timer| Waker::from(Arc::clone(&timer.waker))).collect()
    }
}
