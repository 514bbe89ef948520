//! What a queue keeps under its lock, and the steps that need no waker to run.

use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::QueuePosition;
use super::order::WaitOrder;
use super::policy::{Admission, AdmissionPolicy, Decision};
use super::timer::Timers;
use super::unread::Unread;
use super::waiter::{WaitLimit, WaitLimits, WaitOutcome};
use crate::time::add;

/// How many waiters are told at once, outside the lock, that they do not go.
const CHUNK: usize = 64;
/// Deadlines of waiting calls are judged again at most this often: each second.
const JUDGE_EVERY: Duration = Duration::from_secs(1);

pub(super) struct State<R: AdmissionPolicy> {
    pub(super) policy: R,
    pub(super) order: WaitOrder<R::Call>,
    /// Permits that may be lent.
    pub(super) unread: Unread,
    pub(super) timers: Timers,
    /// When the deadlines of those who wait may be judged again.
    pub(super) judge_at: Option<Instant>,
}

impl<R: AdmissionPolicy> State<R> {
    /// Whether a call has to leave before it has queued.
    pub(super) fn turned_away(
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
    pub(super) fn wake_eligible(&mut self, now: Instant, wakers: &mut Vec<Waker>) -> bool {
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
