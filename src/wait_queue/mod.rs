//! The waiting room that the gate and the plain limit share: order, wake-ups, expiry and timers, written once.
//!
//! A [`Rule`] decides; the room keeps who waits and wakes them. Both live under one mutex, so that a decision and its
//! consequence are one step. Waking is not admission: whoever comes asks the rule again.

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
use order::{Came, Queue};
pub(crate) use permit::Slot;
use timer::{Share, Timers};
pub use unread::DEFAULT_LEND_UNREAD_AFTER;
pub(crate) use unread::Lent;
use unread::Unread;
pub(crate) use waiter::{Bound, Bounds, Outcome, Waiting};

/// What a rule is told that needs no time.
static ANY_TIME: LazyLock<Instant> = LazyLock::new(Instant::now);
/// How many waiters are told at once, outside the lock, that they do not go.
const CHUNK: usize = 64;
/// Deadlines of waiting calls are judged again at most this often: each second.
const JUDGE_EVERY: Duration = Duration::from_secs(1);

/// A call's place in every queue it meets, kept for its life: class first, then first come, first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) class: Priority,
    pub(crate) number: u64,
}

/// How a call may go; the rule gets it back when the call does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Go {
    /// How far the call after it has to stay behind.
    pub(crate) gap: Duration,
    /// It goes although what is believed speaks against it.
    pub(crate) probe: Option<Probe>,
    /// A call that has not been refused yet would tell more.
    pub(crate) prefer_first_attempt: bool,
}

/// What a rule says to the call whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Next {
    /// It may go now.
    Go(Go),
    /// Not before this moment, which lies in the future.
    At(Instant),
    /// Not before something ends, or this moment, which lies in the future.
    Park(Instant),
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

/// Who may go when: the decision that a room is built around.
pub(crate) trait Rule: Send + 'static {
    /// What a call asks for; kept for each waiter, so it is small.
    type Ask: Copy + Send;
    /// What an admitted call gets.
    type Pass: Copy;
    /// Whether the rule needs the time even when nobody waits.
    const CLOCK: bool;

    /// Somebody comes to an empty room.
    fn submit(&mut self, now: Instant);
    /// What the call whose turn it is may do when `ahead` others are counted as gone before it.
    fn next(&mut self, now: Instant, ask: &Self::Ask, ahead: usize) -> Next;
    /// The call goes.
    fn take(&mut self, now: Instant, ask: &Self::Ask, go: Go) -> Self::Pass;
    /// When a call with so many others before it can go at best, where that can be told.
    fn turn(&mut self, _now: Instant, _ask: &Self::Ask, _ahead: usize) -> Option<Instant> {
        None
    }
    /// Whether [`turn`](Self::turn) tells something else than when this was last asked.
    fn outlook_changed(&mut self) -> bool {
        false
    }
    /// Whether a call has not been refused yet.
    fn is_first_attempt(_ask: &Self::Ask) -> bool {
        true
    }
    /// What was admitted has ended. No time is told where a body came at once with the head that was told of.
    fn ended(&mut self, now: Option<Instant>, seq: u64);
    /// How many permits have to be lent so that a call may go when `ahead` others are counted as gone before it. 0: it
    /// lacks something else.
    fn missing(&self, now: Instant, ahead: usize) -> usize;
    /// A permit whose response body nobody reads is lent: it no longer counts as in use.
    fn lend(&mut self);
    /// A permit that was lent has ended: nothing is free again because of it. As in [`ended`](Self::ended), no time is told
    /// where nobody needs it.
    fn returned(&mut self, now: Option<Instant>, seq: u64);
    /// Something of an admitted call's answer has come since this was last told.
    fn progressed(&mut self) {}
    /// What was admitted at an estimated cost has used so much.
    fn used(&mut self, _estimated: f64, _used: f64) {}
}

/// A rule, its queue and its timers.
pub(crate) struct Room<R: Rule> {
    state: Mutex<State<R>>,
    /// A timer fired and nobody has looked yet. Its waker may run while we hold the lock ourselves.
    rang: AtomicBool,
    /// A frame of a body has come and nobody has told the rule.
    progressed: AtomicBool,
    me: Weak<Self>,
}

struct State<R: Rule> {
    rule: R,
    queue: Queue<R::Ask>,
    /// Permits that may be lent.
    unread: Unread,
    timers: Timers,
    /// When the deadlines of those who wait may be judged again.
    judge_at: Option<Instant>,
}

/// What a call at the door gets.
pub(crate) enum Entry<P> {
    Admitted(P),
    Wait,
    Closed(Closed),
    /// Its buckets stay empty for longer than it may wait.
    Reject {
        retry_after: Duration,
    },
}

impl<R: Rule> Room<R> {
    pub(crate) fn new(rule: R) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            state: Mutex::new(State {
                rule,
                queue: Queue::new(),
                unread: Unread::default(),
                timers: Timers::default(),
                judge_at: None,
            }),
            rang: AtomicBool::new(false),
            progressed: AtomicBool::new(false),
            me: me.clone(),
        })
    }

    /// Lets a call in if nobody is before it and the rule agrees. It does not queue.
    #[inline]
    pub(crate) fn enter(&self, ask: R::Ask) -> Entry<R::Pass> {
        self.with(|state| {
            if !state.queue.is_idle() {
                return Entry::Wait;
            }
            let now = state.now();
            state.rule.submit(now);
            match state.rule.next(now, &ask, 0) {
                Next::Go(go) => Entry::Admitted(state.rule.take(now, &ask, go)),
                Next::Closed(closed) => Entry::Closed(closed),
                Next::Reject { retry_after } => Entry::Reject { retry_after },
                Next::At(_) | Next::Park(_) => Entry::Wait,
            }
        })
    }

    /// Tells the rule something, then lets in whoever may go because of it.
    #[inline]
    pub(crate) fn tell<T>(&self, event: impl FnOnce(&mut R, Instant) -> T) -> T {
        let mut state = self.lock();
        let now = state.now();
        if self.progressed.swap(false, Ordering::Relaxed) {
            state.rule.progressed();
        }
        let told = event(&mut state.rule, now);
        self.finish(state, now);
        told
    }

    /// Looks at the rule without changing who may go.
    #[inline]
    pub(crate) fn look<T>(&self, at: impl FnOnce(&R) -> T) -> T {
        self.with(|state| at(&state.rule))
    }

    /// How many wait.
    pub(crate) fn queued(&self) -> usize {
        self.with(|state| state.queue.len())
    }

    /// A waiter that will not come any more.
    fn cancel(&self, place: Place, share: Option<Share>) {
        let mut state = self.lock();
        let waker = state.queue.remove(place);
        state.timers.leave(share);
        let now = state.now();
        self.finish(state, now);
        drop(waker);
    }

    /// One poll of a call that waits; its `first` one puts it into the queue.
    fn poll_place(
        &self,
        place: &mut Place,
        share: &mut Option<Share>,
        ask: &R::Ask,
        bounds: &Bounds,
        first: bool,
        waker: &Waker,
    ) -> Poll<Outcome<R::Pass>> {
        let waker = waker.clone(); // before anything changes: it may panic
        let mut state = self.lock();
        let now = Instant::now();
        if first && state.queue.holds(*place) {
            // A copy of a request came along with the original's number: it queues as a call of its own.
            place.number = next_number();
        }
        let place = *place;
        let turn = match (state.queue.came(place), first) {
            (Some(Came::Rejected { retry_after }), _) => {
                state.timers.leave(share.take());
                self.finish(state, now);
                return Poll::Ready(Outcome::Late(Bound::Deadline, Some(retry_after)));
            }
            (Some(Came::Called), _) => Some(0),
            (Some(Came::Late), _) => Some(state.queue.ahead()),
            (None, true) if state.queue.is_idle() => {
                state.rule.submit(now);
                Some(0)
            }
            (None, _) => None,
        };
        let next = turn.map(|ahead| state.decide(now, ask, ahead));
        let outcome = match next {
            Some(Next::Go(go)) => {
                if !state.queue.is_idle() {
                    state.queue.charge(place.class);
                }
                Some(Outcome::Admitted(state.rule.take(now, ask, go)))
            }
            Some(Next::Closed(closed)) => Some(Outcome::Closed(closed)),
            Some(Next::Reject { retry_after }) => Some(Outcome::Rejected { retry_after }),
            _ if first => state.turned_away(now, place, ask, bounds),
            _ => None,
        };
        let (poll, old) = if let Some(outcome) = outcome {
            state.timers.leave(share.take());
            (Poll::Ready(outcome), Some(waker))
        } else {
            state.timers.join(now, share, &self.me);
            (Poll::Pending, state.queue.insert(place, *ask, bounds.deadline, waker))
        };
        self.finish(state, now);
        drop(old);
        poll
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        // A panic of somebody else's waker or clock leaves the books as they were: each step is written to be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step that nobody has to be called for. The bell may have rung meanwhile, and whoever rang it left it to us.
    #[inline]
    fn with<T>(&self, step: impl FnOnce(&mut State<R>) -> T) -> T {
        let mut state = self.lock();
        let done = step(&mut state);
        drop(state);
        self.answer_bell();
        done
    }

    /// Calls whoever may go, unlocks, and wakes them.
    #[inline]
    fn finish<'a>(&'a self, state: MutexGuard<'a, State<R>>, now: Instant) {
        if state.queue.len() > 0 || state.timers.are_made() {
            self.unlock(state, now);
        } else {
            drop(state); // nobody to call, no timer to set or to give up: what most calls meet
        }
        self.answer_bell();
    }

    fn unlock<'a>(&'a self, mut state: MutexGuard<'a, State<R>>, now: Instant) {
        loop {
            let mut wakers = Vec::new();
            let more = state.pump(now, &mut wakers);
            drop(state);
            wake_each(wakers);
            if !more {
                return;
            }
            state = self.lock();
        }
    }

    /// After every unlock: the bell may have rung while the lock was held.
    #[inline]
    fn answer_bell(&self) {
        if self.rang.load(Ordering::SeqCst) {
            self.obey_bell();
        }
    }

    /// Does what a timer asked for.
    fn obey_bell(&self) {
        while self.rang.load(Ordering::SeqCst) {
            let mut state = match self.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return, // whoever holds it looks at the bell after unlocking
            };
            self.rang.store(false, Ordering::SeqCst);
            let now = state.now();
            // One that fired before its time is lost, because its runtime shuts down: whoever waits there looks for another.
            // Where none is left, that is seen to below.
            let lost = !state.timers.fired(now) && state.timers.are_made();
            let messengers = if lost { state.queue.messengers() } else { Vec::new() };
            self.unlock(state, now);
            wake_each(messengers);
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

impl<R: Rule> timer::Bell for Room<R> {
    fn ring(&self) {
        self.rang.store(true, Ordering::SeqCst);
        self.answer_bell();
    }
}

impl<R: Rule> std::fmt::Debug for Room<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

impl<R: Rule> State<R> {
    /// The time, or any time where neither the rule nor a waiter needs one: reading the clock is not free.
    fn now(&self) -> Instant {
        if R::CLOCK || self.queue.len() > 0 { Instant::now() } else { *ANY_TIME }
    }

    /// Whether a call has to leave before it has queued.
    fn turned_away(&mut self, now: Instant, place: Place, ask: &R::Ask, bounds: &Bounds) -> Option<Outcome<R::Pass>> {
        let ahead = if bounds.again { self.queue.ahead() } else { self.queue.before(place.class) };
        if !bounds.again && bounds.max_queue.is_some_and(|most| self.queue.len_of(place.class) >= most) {
            return Some(Outcome::Full(self.wait_for_turn(now, ask, ahead)));
        }
        let deadline = bounds.deadline?;
        let wait = self.wait_for_turn(now, ask, ahead);
        let late = wait.map_or(now, |wait| add(now, wait)) > deadline;
        late.then_some(Outcome::Late(Bound::Deadline, wait))
    }

    fn wait_for_turn(&mut self, now: Instant, ask: &R::Ask, ahead: usize) -> Option<Duration> {
        Some(self.rule.turn(now, ask, ahead)?.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Judges the deadlines of those who wait again, where the outlook has changed since they came. Tells when it wants to
    /// be asked again.
    fn judge_deadlines(&mut self, now: Instant) -> Option<Instant> {
        if !self.queue.has_deadlines() {
            return None;
        }
        if let Some(at) = self.judge_at.filter(|at| *at > now) {
            return Some(at);
        }
        if self.rule.outlook_changed() {
            self.judge_at = Some(now + JUDGE_EVERY);
            let rule = &mut self.rule;
            self.queue.reject_late(|ask, deadline, ahead| {
                let turn = rule.turn(now, ask, ahead).filter(|turn| *turn > deadline)?;
                Some(turn.saturating_duration_since(now))
            });
        }
        None
    }

    /// Whether a call may go that is called next.
    fn may_go(&mut self, now: Instant, ask: &R::Ask) -> bool {
        let ahead = self.queue.ahead();
        matches!(self.decide(now, ask, ahead), Next::Go(_))
    }

    /// Calls everybody who may go and sets the timers. True: there is more to tell; come again after waking these.
    fn pump(&mut self, now: Instant, wakers: &mut Vec<Waker>) -> bool {
        self.queue.expire(now);
        let judge_at = self.judge_deadlines(now);
        if self.queue.take_rejected(CHUNK, wakers) {
            return true;
        }
        let mut due = None;
        while let Some((place, ask)) = self.queue.head() {
            match self.decide(now, &ask, self.queue.ahead()) {
                Next::Go(Go { prefer_first_attempt: true, .. }) => {
                    // Only one that may go itself: another one would come, wait on, and be called again without end.
                    let other = self.queue.find(R::is_first_attempt);
                    let other = other.filter(|(_, ask)| self.may_go(now, ask));
                    wakers.extend(self.queue.call(other.map_or(place, |(place, _)| place), now));
                }
                Next::Go(_) => wakers.extend(self.queue.call(place, now)),
                Next::Closed(_) => {
                    if self.queue.dismiss(CHUNK, wakers) {
                        return true;
                    }
                }
                Next::Reject { .. } => {
                    wakers.extend(self.queue.dismiss_one(place));
                    if wakers.len() >= CHUNK {
                        return true;
                    }
                }
                Next::At(at) => {
                    due = Some(at);
                    break;
                }
                Next::Park(at) => {
                    due = Some(at);
                    break;
                }
            }
        }
        let due = [due, judge_at, self.queue.next_expiry()].into_iter().flatten().min();
        // A rule that asked to be woken now would be woken for ever.
        let due = due.map(|due| due.max(now + Duration::from_micros(1)));
        if !self.timers.aim(now, due, self.queue.len() > 0) {
            wakers.extend(self.queue.messengers()); // to make one: only a waiter's poll has a runtime for sure
        }
        false
    }
}
