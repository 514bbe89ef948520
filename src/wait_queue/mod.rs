//! The wait queue that the controller and the plain limit share: order, wake-ups, expiry and timers, written once.
//!
//! An [`AdmissionPolicy`] decides; the queue keeps who waits and wakes them. Both live under one mutex, so that a decision and its
//! consequence are one step. Waking is not admission: whoever comes asks the policy again.

mod lending;
mod order;
mod permit;
mod policy;
#[cfg(test)]
mod schedules;
mod state;
#[cfg(test)]
mod tests;
mod timer;
mod unread;
mod waiter;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::task::{Poll, Waker};

use tokio::time::Instant;

use crate::request::{Priority, next_number};
use order::{Arrival, WaitOrder};
pub(crate) use permit::Permit;
pub(crate) use policy::{Admission, AdmissionPolicy, Closed, Decision, Probe, TryAdmit};
use state::State;
use timer::{Share, Timers};
pub use unread::DEFAULT_LEND_UNREAD_AFTER;
pub(crate) use unread::Lent;
use unread::Unread;
use waiter::WaitingCall;
pub(crate) use waiter::{WaitLimit, WaitLimits, WaitOutcome, Waiter};

/// A call's place in every queue it meets, kept for its life: class first, then first come, first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueuePosition {
    pub(crate) class: Priority,
    pub(crate) number: u64,
}

/// A policy, its queue and its timers.
pub(crate) struct WaitQueue<R: AdmissionPolicy> {
    state: Mutex<State<R>>,
    /// A timer fired and nobody has looked yet. Its waker may run while we hold the lock ourselves.
    timer_fired: AtomicBool,
    /// A frame of a body has come and nobody has told the policy.
    progressed: AtomicBool,
    me: Weak<Self>,
}

impl<R: AdmissionPolicy> WaitQueue<R> {
    pub(crate) fn new(policy: R) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            state: Mutex::new(State {
                policy,
                order: WaitOrder::new(),
                unread: Unread::default(),
                timers: Timers::default(),
                judge_at: None,
            }),
            timer_fired: AtomicBool::new(false),
            progressed: AtomicBool::new(false),
            me: me.clone(),
        })
    }

    /// Lets a call in if nobody is before it and the policy agrees. It does not queue.
    #[inline]
    pub(crate) fn try_admit(&self, call: R::Call) -> TryAdmit<R::Ticket> {
        self.with(|state| {
            if !state.order.is_idle() {
                return TryAdmit::Wait;
            }
            let now = Instant::now();
            state.policy.on_arrival(now);
            match state.policy.decide(now, &call, 0) {
                Decision::Admit(admission) => TryAdmit::Admitted(state.policy.admit(now, &call, admission)),
                Decision::Closed(closed) => TryAdmit::Closed(closed),
                Decision::Reject { retry_after } => TryAdmit::Reject { retry_after },
                Decision::NotBefore(_) | Decision::Blocked(_) => TryAdmit::Wait,
            }
        })
    }

    /// Tells the policy something, then lets in whoever may go because of it.
    #[inline]
    pub(crate) fn update<T>(&self, event: impl FnOnce(&mut R, Instant) -> T) -> T {
        let mut state = self.lock();
        let now = Instant::now();
        if self.progressed.swap(false, Ordering::Relaxed) {
            state.policy.on_progress();
        }
        let told = event(&mut state.policy, now);
        self.finish(state, now);
        told
    }

    /// Looks at the policy without changing who may go.
    #[inline]
    pub(crate) fn read<T>(&self, at: impl FnOnce(&R) -> T) -> T {
        self.with(|state| at(&state.policy))
    }

    /// How many wait.
    pub(crate) fn queued(&self) -> usize {
        self.with(|state| state.order.len())
    }

    /// A waiter that will not come any more.
    fn cancel(&self, position: QueuePosition, share: Option<Share>) {
        let mut state = self.lock();
        let waker = state.order.remove(position);
        state.timers.leave(share);
        let now = Instant::now();
        self.finish(state, now);
        drop(waker);
    }

    /// One poll of a call that waits; its `first` one puts it into the queue.
    fn poll_position(
        &self,
        waiting: &mut WaitingCall<R::Call>,
        first: bool,
        waker: &Waker,
    ) -> Poll<WaitOutcome<R::Ticket>> {
        let WaitingCall { position, call, limits, share } = waiting;
        let waker = waker.clone(); // before anything changes: it may panic
        let mut state = self.lock();
        let now = Instant::now();
        if first && state.order.holds(*position) {
            // A copy of a request came along with the original's number: it queues as a call of its own.
            position.number = next_number();
        }
        let position = *position;
        let turn = match (state.order.arrive(position), first) {
            (Some(Arrival::Rejected { retry_after }), _) => {
                state.timers.leave(share.take());
                self.finish(state, now);
                return Poll::Ready(WaitOutcome::Expired(WaitLimit::Deadline, Some(retry_after)));
            }
            (Some(Arrival::InTime), _) => Some(0),
            (Some(Arrival::Late), _) => Some(state.order.ahead()),
            (None, true) if state.order.is_idle() => {
                state.policy.on_arrival(now);
                Some(0)
            }
            (None, _) => None,
        };
        let next = turn.map(|ahead| state.decide_or_lend(now, call, ahead));
        let outcome = match next {
            Some(Decision::Admit(admission)) => {
                if !state.order.is_idle() {
                    state.order.charge(position.class);
                }
                Some(WaitOutcome::Admitted(state.policy.admit(now, call, admission)))
            }
            Some(Decision::Closed(closed)) => Some(WaitOutcome::Closed(closed)),
            Some(Decision::Reject { retry_after }) => Some(WaitOutcome::Rejected { retry_after }),
            _ if first => state.turned_away(now, position, call, limits),
            _ => None,
        };
        let (poll, old) = if let Some(outcome) = outcome {
            state.timers.leave(share.take());
            (Poll::Ready(outcome), Some(waker))
        } else {
            state.timers.join(now, share, &self.me);
            (Poll::Pending, state.order.insert(position, *call, limits.deadline, waker))
        };
        self.finish(state, now);
        drop(old);
        poll
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        // A panic of somebody else's waker or clock leaves the books as they were: each step is written to be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step that nobody has to be called for. The target may have rung meanwhile, and whoever timer_fired it left it to us.
    #[inline]
    fn with<T>(&self, step: impl FnOnce(&mut State<R>) -> T) -> T {
        let mut state = self.lock();
        let done = step(&mut state);
        drop(state);
        self.check_timer();
        done
    }

    /// Calls whoever may go, unlocks, and wakes them.
    #[inline]
    fn finish<'a>(&'a self, state: MutexGuard<'a, State<R>>, now: Instant) {
        if state.order.len() > 0 || state.timers.are_made() {
            self.unlock(state, now);
        } else {
            drop(state); // nobody to call, no timer to set or to give up: what most calls meet
        }
        self.check_timer();
    }

    fn unlock<'a>(&'a self, mut state: MutexGuard<'a, State<R>>, now: Instant) {
        loop {
            let mut wakers = Vec::new();
            let more = state.wake_eligible(now, &mut wakers);
            drop(state);
            wake_each(wakers);
            if !more {
                return;
            }
            state = self.lock();
        }
    }

    /// After every unlock: the target may have rung while the lock was held.
    #[inline]
    fn check_timer(&self) {
        if self.timer_fired.load(Ordering::SeqCst) {
            self.handle_timer();
        }
    }

    /// Does what a timer asked for.
    fn handle_timer(&self) {
        while self.timer_fired.load(Ordering::SeqCst) {
            let mut state = match self.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return, // whoever holds it looks at the target after unlocking
            };
            self.timer_fired.store(false, Ordering::SeqCst);
            let now = Instant::now();
            // One that fired before its time is lost, because its runtime shuts down: whoever waits there looks for another.
            // Where none is left, that is seen to below.
            let lost = !state.timers.fired(now) && state.timers.are_made();
            let some_wakers = if lost { state.order.some_wakers() } else { Vec::new() };
            self.unlock(state, now);
            wake_each(some_wakers);
        }
    }
}

/// Wakes waiters, outside the lock. One whose waker panics is as silent as one that is not polled; who wakes it and who
/// waits behind it have nothing to do with that.
fn wake_each(wakers: Vec<Waker>) {
    for waker in wakers {
        let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
}

impl<R: AdmissionPolicy> timer::TimerTarget for WaitQueue<R> {
    fn on_timer(&self) {
        self.timer_fired.store(true, Ordering::SeqCst);
        self.check_timer();
    }
}

impl<R: AdmissionPolicy> std::fmt::Debug for WaitQueue<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitQueue").finish_non_exhaustive()
    }
}
