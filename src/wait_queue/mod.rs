//! The wait queue shared by the controller and the plain limit: order, wake-ups, expiry and timers.
//!
//! An [`AdmissionPolicy`] decides who is admitted. The queue holds the waiters and wakes them. One mutex guards both,
//! so that a decision and its effect are one step. A wake-up is not an admission: each waiter asks the policy again
//! when it is polled.

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

/// A call's position in every queue, kept for the life of the call. It orders by class, then first come, first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueuePosition {
    pub(crate) class: Priority,
    pub(crate) number: u64,
}

/// A policy with its waiters and timers.
pub(crate) struct WaitQueue<R: AdmissionPolicy> {
    state: Mutex<State<R>>,
    /// Whether a timer has fired and has not been handled yet. Its waker may run while this thread holds the lock.
    timer_fired: AtomicBool,
    /// Whether a frame of a body has arrived and the policy has not been told yet.
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

    /// Admits a call if no call is before it and the policy agrees. It does not queue the call.
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

    /// Applies an event to the policy, then wakes the waiters that may go because of it.
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

    /// Reads the policy. No waiter is woken.
    #[inline]
    pub(crate) fn read<T>(&self, at: impl FnOnce(&R) -> T) -> T {
        self.with(|state| at(&state.policy))
    }

    /// Returns the number of waiters.
    pub(crate) fn queued(&self) -> usize {
        self.with(|state| state.order.len())
    }

    /// Removes a waiter that stopped waiting.
    fn cancel(&self, position: QueuePosition, share: Option<Share>) {
        let mut state = self.lock();
        let waker = state.order.remove(position);
        state.timers.leave(share);
        let now = Instant::now();
        self.finish(state, now);
        drop(waker);
    }

    /// Polls a waiting call. With `first`, it inserts the call into the queue.
    fn poll_position(
        &self,
        waiting: &mut WaitingCall<R::Call>,
        first: bool,
        waker: &Waker,
    ) -> Poll<WaitOutcome<R::Ticket>> {
        let WaitingCall { position, call, limits, share } = waiting;
        let waker = waker.clone(); // cloned before anything changes, because it may panic
        let mut state = self.lock();
        let now = Instant::now();
        if first && state.order.holds(*position) {
            // A cloned request has the number of the original. It gets a number of its own here.
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
        // A panic of a foreign waker or of the clock leaves the state consistent, because each step is complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a step that wakes no waiter. A timer may have fired while the lock was held, so it is handled afterwards.
    #[inline]
    fn with<T>(&self, step: impl FnOnce(&mut State<R>) -> T) -> T {
        let mut state = self.lock();
        let done = step(&mut state);
        drop(state);
        self.check_timer();
        done
    }

    /// Notifies the waiters that may go, unlocks, and wakes them.
    #[inline]
    fn finish<'a>(&'a self, state: MutexGuard<'a, State<R>>, now: Instant) {
        if state.order.len() > 0 || state.timers.are_made() {
            self.unlock(state, now);
        } else {
            drop(state); // the usual case: no waiter to notify and no timer to set or drop
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

    /// Handles a timer that fired while the lock was held. Call it after every unlock.
    #[inline]
    fn check_timer(&self) {
        if self.timer_fired.load(Ordering::SeqCst) {
            self.handle_timer();
        }
    }

    /// Handles a fired timer: wakes the waiters that may go.
    fn handle_timer(&self) {
        while self.timer_fired.load(Ordering::SeqCst) {
            let mut state = match self.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return, // the holder of the lock checks the timer after unlocking
            };
            self.timer_fired.store(false, Ordering::SeqCst);
            let now = Instant::now();
            // A timer that fires early is lost, because its runtime shuts down. Waking some waiters makes a new timer
            // in another runtime. If no timer is left, `unlock` wakes them.
            let lost = !state.timers.fired(now) && state.timers.are_made();
            let some_wakers = if lost { state.order.some_wakers() } else { Vec::new() };
            self.unlock(state, now);
            wake_each(some_wakers);
        }
    }
}

/// Wakes waiters outside the lock. A waker that panics counts as a waiter that is not polled. The panic does not reach
/// the thread that wakes it or the other waiters.
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
