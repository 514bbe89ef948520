//! The wait queue that the controller and the plain limit share: order, wake-ups, expiry and timers, written once.
//!
//! An [`AdmissionPolicy`] decides; the queue keeps who waits and wakes them. Both live under one mutex, so that a decision and its
//! consequence are one step. Waking is not admission: whoever comes asks the policy again.

mod lending;
mod order;
mod permit;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;
mod timer;
mod unread;
mod waiter;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::quota::Probe;
use crate::request::{Priority, next_number};
use crate::time::add;
use order::{Arrival, WaitOrder};
pub(crate) use permit::Permit;
use timer::{Share, Timers};
pub use unread::DEFAULT_LEND_UNREAD_AFTER;
pub(crate) use unread::Lent;
use unread::Unread;
pub(crate) use waiter::{WaitLimit, WaitLimits, WaitOutcome, Waiter};

/// What a policy is told that needs no time.
static ANY_TIME: LazyLock<Instant> = LazyLock::new(Instant::now);
/// How many waiters are told at once, outside the lock, that they do not go.
const CHUNK: usize = 64;
/// Deadlines of waiting calls are judged again at most this often: each second.
const JUDGE_EVERY: Duration = Duration::from_secs(1);

/// A call's place in every queue it meets, kept for its life: class first, then first come, first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueuePosition {
    pub(crate) class: Priority,
    pub(crate) number: u64,
}

/// How a call may go; the policy gets it back when the call does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Admission {
    /// How far the call after it has to stay behind.
    pub(crate) gap: Duration,
    /// It goes although what is believed speaks against it.
    pub(crate) probe: Option<Probe>,
    /// A call that has not been throttled yet would tell more.
    pub(crate) prefer_first_attempt: bool,
}

/// What a policy says to the call whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Decision {
    /// It may go now.
    Admit(Admission),
    /// Not before this moment, which lies in the future.
    NotBefore(Instant),
    /// Not before something ends, or this moment, which lies in the future.
    Blocked(Instant),
    /// Not for longer than this call waits; another one may go sooner.
    Reject { retry_after: Duration },
    /// Not for long: everybody is to be answered now.
    Closed(Closed),
}

/// Why nobody is let in, and when it is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) quota: bool,
    pub(crate) retry_after: Duration,
}

/// Who may go when: the decision that a queue is built around.
pub(crate) trait AdmissionPolicy: Send + 'static {
    /// What a call asks for; kept for each waiter, so it is small.
    type Call: Copy + Send;
    /// What an admitted call gets.
    type Ticket: Copy;
    /// Whether the policy needs the time even when nobody waits.
    const CLOCK: bool;

    /// Somebody comes to an empty queue.
    fn on_arrival(&mut self, now: Instant);
    /// What the call whose turn it is may do when `ahead` others are counted as gone before it.
    fn decide(&mut self, now: Instant, call: &Self::Call, ahead: usize) -> Decision;
    /// The call goes.
    fn admit(&mut self, now: Instant, call: &Self::Call, admission: Admission) -> Self::Ticket;
    /// When a call with so many others before it can go at best, where that can be told.
    fn earliest_start(&mut self, _now: Instant, _call: &Self::Call, _ahead: usize) -> Option<Instant> {
        None
    }
    /// Whether [`earliest_start`](Self::earliest_start) tells something else than when this was last asked.
    fn take_estimate_changed(&mut self) -> bool {
        false
    }
    /// Whether a call has not been throttled yet.
    fn is_first_attempt(_call: &Self::Call) -> bool {
        true
    }
    /// What was admitted has ended. No time is told where a body came at once with the head that was told of.
    fn release(&mut self, now: Option<Instant>, seq: u64);
    /// How many permits have to be lent so that a call may go when `ahead` others are counted as gone before it. 0: it
    /// lacks something else.
    fn missing_permits(&self, now: Instant, ahead: usize) -> usize;
    /// A permit whose response body nobody reads is lent: it no longer counts as in use.
    fn lend_permit(&mut self);
    /// A permit that was lent has ended: nothing is free again because of it. As in [`release`](Self::release), no time is told
    /// where nobody needs it.
    fn release_lent(&mut self, now: Option<Instant>, seq: u64);
    /// Something of an admitted call's answer has come since this was last told.
    fn on_progress(&mut self) {}
    /// What was admitted at an estimated cost has used so much.
    fn on_usage(&mut self, _estimated: f64, _used: f64) {}
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

struct State<R: AdmissionPolicy> {
    policy: R,
    order: WaitOrder<R::Call>,
    /// Permits that may be lent.
    unread: Unread,
    timers: Timers,
    /// When the deadlines of those who wait may be judged again.
    judge_at: Option<Instant>,
}

/// What a call at the door gets.
pub(crate) enum TryAdmit<P> {
    Admitted(P),
    Wait,
    Closed(Closed),
    /// Its buckets stay empty for longer than it may wait.
    Reject {
        retry_after: Duration,
    },
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
            let now = state.now();
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
        let now = state.now();
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
        let now = state.now();
        self.finish(state, now);
        drop(waker);
    }

    /// One poll of a call that waits; its `first` one puts it into the queue.
    fn poll_position(
        &self,
        position: &mut QueuePosition,
        share: &mut Option<Share>,
        call: &R::Call,
        limits: &WaitLimits,
        first: bool,
        waker: &Waker,
    ) -> Poll<WaitOutcome<R::Ticket>> {
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
            let now = state.now();
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

impl<R: AdmissionPolicy> State<R> {
    /// The time, or any time where neither the policy nor a waiter needs one: reading the clock is not free.
    fn now(&self) -> Instant {
        if R::CLOCK || self.order.len() > 0 { Instant::now() } else { *ANY_TIME }
    }

    /// Whether a call has to leave before it has queued.
    fn turned_away(
        &mut self,
        now: Instant,
        position: QueuePosition,
        call: &R::Call,
        limits: &WaitLimits,
    ) -> Option<WaitOutcome<R::Ticket>> {
        let ahead = if limits.again { self.order.ahead() } else { self.order.before(position.class) };
        if !limits.again && limits.max_queue.is_some_and(|most| self.order.len_of(position.class) >= most) {
            return Some(WaitOutcome::Full(self.wait_for_turn(now, call, ahead)));
        }
        let deadline = limits.deadline?;
        let wait = self.wait_for_turn(now, call, ahead);
        let late = wait.map_or(now, |wait| add(now, wait)) > deadline;
        late.then_some(WaitOutcome::Expired(WaitLimit::Deadline, wait))
    }

    fn wait_for_turn(&mut self, now: Instant, call: &R::Call, ahead: usize) -> Option<Duration> {
        Some(self.policy.earliest_start(now, call, ahead)?.saturating_duration_since(now))
            .filter(|wait| !wait.is_zero())
    }

    /// Judges the deadlines of those who wait again, where the outlook has changed since they came. Tells when it wants to
    /// be asked again.
    fn judge_deadlines(&mut self, now: Instant) -> Option<Instant> {
        if !self.order.has_deadlines() {
            return None;
        }
        if let Some(at) = self.judge_at.filter(|at| *at > now) {
            return Some(at);
        }
        if self.policy.take_estimate_changed() {
            self.judge_at = Some(now + JUDGE_EVERY);
            let policy = &mut self.policy;
            self.order.reject_late(|call, deadline, ahead| {
                let turn = policy.earliest_start(now, call, ahead).filter(|turn| *turn > deadline)?;
                Some(turn.saturating_duration_since(now))
            });
        }
        None
    }

    /// Whether a call may go that is called next.
    fn may_go(&mut self, now: Instant, call: &R::Call) -> bool {
        let ahead = self.order.ahead();
        matches!(self.decide_or_lend(now, call, ahead), Decision::Admit(_))
    }

    /// Calls everybody who may go and sets the timers. True: there is more to tell; come again after waking these.
    fn wake_eligible(&mut self, now: Instant, wakers: &mut Vec<Waker>) -> bool {
        self.order.expire(now);
        let judge_at = self.judge_deadlines(now);
        if self.order.take_rejected(CHUNK, wakers) {
            return true;
        }
        let mut due = None;
        while let Some((position, call)) = self.order.head() {
            match self.decide_or_lend(now, &call, self.order.ahead()) {
                Decision::Admit(Admission { prefer_first_attempt: true, .. }) => {
                    // Only one that may go itself: another one would come, wait on, and be called again without end.
                    let other = self.order.find(R::is_first_attempt);
                    let other = other.filter(|(_, call)| self.may_go(now, call));
                    wakers.extend(self.order.notify(other.map_or(position, |(position, _)| position), now));
                }
                Decision::Admit(_) => wakers.extend(self.order.notify(position, now)),
                Decision::Closed(_) => {
                    if self.order.notify_closed(CHUNK, wakers) {
                        return true;
                    }
                }
                Decision::Reject { .. } => {
                    wakers.extend(self.order.notify_rejected(position));
                    if wakers.len() >= CHUNK {
                        return true;
                    }
                }
                Decision::NotBefore(at) => {
                    due = Some(at);
                    break;
                }
                Decision::Blocked(at) => {
                    due = Some(at);
                    break;
                }
            }
        }
        let due = [due, judge_at, self.order.next_expiry()].into_iter().flatten().min();
        // A policy that asked to be woken now would be woken for ever.
        let due = due.map(|due| due.max(now + Duration::from_micros(1)));
        if !self.timers.set(now, due, self.order.len() > 0) {
            wakers.extend(self.order.some_wakers()); // to make one: only a waiter's poll has a runtime for sure
        }
        false
    }
}
