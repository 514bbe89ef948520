//! The state of a queue under its lock, and the steps that run no waker.

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

/// The number of waiters that are rejected in one batch, since they are woken outside the lock.
const CHUNK: usize = 64;
/// The minimum time between two checks of the waiters' deadlines: 1 s.
const JUDGE_EVERY: Duration = Duration::from_secs(1);

pub(super) struct State<R: AdmissionPolicy> {
    pub(super) policy: R,
    pub(super) order: WaitOrder<R::Call>,
    /// The permits of unread bodies, which may be lent.
    pub(super) unread: Unread,
    pub(super) timers: Timers,
    /// The earliest time of the next check of the deadlines.
    pub(super) judge_at: Option<Instant>,
}

impl<R: AdmissionPolicy> State<R> {
    /// Returns the rejection of a call that does not fit into the queue or cannot start before its deadline.
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

    /// Rejects waiters that cannot start before their deadline, if the estimates have changed. Returns the time of the
    /// next check if it is too early.
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

    /// Returns true if a call would be admitted next.
    fn may_go(&mut self, now: Instant, call: &R::Call) -> bool {
        let ahead = self.order.ahead();
        matches!(self.decide_or_lend(now, call, ahead), Decision::Admit(_))
    }

    /// Notifies all waiters that may go, and sets the timers. Returns true if more waiters must be notified after these
    /// have been woken.
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
                    // The other call must be admissible itself. If not, it would wait on and be notified again without
                    // end.
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
        // A time that is not in the future would wake the policy in an endless loop.
        let due = due.map(|due| due.max(now + Duration::from_micros(1)));
        if !self.timers.set(now, due, self.order.len() > 0) {
            wakers.extend(self.order.some_wakers()); // only a poll is certain to run in a runtime
        }
        false
    }
}
