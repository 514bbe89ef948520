//! Which calls wait, in which order, and which of them have been notified. Plain data: it reads no clock and takes no lock.
//!
//! Each waiter is in one of two maps. `waiting` holds those to be notified, by class and number. `notified` holds those that
//! have been notified and have not been polled since. After [`CLAIM_TIMEOUT`] a notified waiter no longer counts, and the
//! next one is notified. It keeps its position.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::QueuePosition;
use crate::request::Priority;

/// How long a notified waiter may take to be polled before the next one is notified: 20 ms.
pub(crate) const CLAIM_TIMEOUT: Duration = Duration::from_millis(20);
/// How many waiters are notified at once for one permit, at most.
///
/// Each time that notified waiters are not polled, twice as many are notified. A queue full of abandoned calls is passed in
/// a few steps.
pub(crate) const MAX_NOTIFIED: u32 = 64;

const CLASSES: usize = Priority::ALL.len();

/// How a notified waiter was polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// In time: the permit that it was notified for is its own.
    InTime,
    /// After it had stopped counting, or because the key has closed.
    Late,
    /// Its turn comes after its deadline, in so long.
    Rejected { retry_after: Duration },
}

/// A notified waiter that has not been polled yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notified {
    /// Notified at this time, and counted as about to go.
    Counted(Instant),
    /// Not counted: it asks again when it is polled.
    Late,
    /// Its turn comes after its deadline.
    Rejected { retry_after: Duration },
}

/// One waiter: what it asks for, and how to wake it.
#[derive(Debug)]
struct QueuedWaiter<A> {
    call: A,
    deadline: Option<Instant>,
    waker: Waker,
}

/// The waiters of one queue.
#[derive(Debug)]
pub(crate) struct WaitOrder<A> {
    /// Those to be notified, by number.
    waiting: [BTreeMap<u64, QueuedWaiter<A>>; CLASSES],
    /// Those that have been notified and have not been polled since.
    notified: [BTreeMap<u64, Notified>; CLASSES],
    /// The wakers of those whose turn comes after their deadline, until they are woken.
    rejected: Vec<Waker>,
    /// How many waiters have a deadline.
    deadlines: usize,
    /// The notifications that may still count, in order of time.
    notifications: VecDeque<(QueuePosition, Instant)>,
    /// How many notified waiters count, by class.
    counted: [u32; CLASSES],
    /// When each class is served next: the lowest turn goes first, and each admission adds the stride of its class.
    turn: [u64; CLASSES],
    /// The turn of the class that was served last.
    clock: u64,
    /// How many waiters are notified at once for one permit.
    batch: u32,
}

impl<A: Copy> WaitOrder<A> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Default::default(),
            notified: Default::default(),
            rejected: Vec::new(),
            deadlines: 0,
            notifications: VecDeque::new(),
            counted: [0; CLASSES],
            turn: [0; CLASSES],
            clock: 0,
            batch: 1,
        }
    }

    /// How many calls wait, notified or not.
    pub(crate) fn len(&self) -> usize {
        Priority::ALL.into_iter().map(|class| self.len_of(class)).sum()
    }

    /// How many calls of this class wait, notified or not.
    pub(crate) fn len_of(&self, class: Priority) -> usize {
        self.waiting[class.index()].len() + self.notified[class.index()].len()
    }

    /// Whether no call is to go before a new one.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.iter().all(BTreeMap::is_empty) && self.counted.iter().all(|n| *n == 0)
    }

    /// How many calls are to go before a new one of this class.
    pub(crate) fn before(&self, class: Priority) -> usize {
        let higher = &self.waiting[..=class.index()];
        higher.iter().map(BTreeMap::len).sum::<usize>() + self.counted.iter().sum::<u32>() as usize
    }

    /// Inserts a waiter at its position, or replaces its waker. Returns a waker to drop outside the lock.
    pub(crate) fn insert(
        &mut self,
        position: QueuePosition,
        call: A,
        deadline: Option<Instant>,
        waker: Waker,
    ) -> Option<Waker> {
        let class = position.class.index();
        if self.waiting[class].is_empty() && self.counted[class] == 0 {
            // A class earns no credit for the time in which it had no waiters.
            self.turn[class] = self.turn[class].max(self.clock);
        }
        match self.waiting[class].get_mut(&position.number) {
            Some(waiter) => Some(std::mem::replace(&mut waiter.waker, waker)),
            None => {
                self.deadlines += usize::from(deadline.is_some());
                self.waiting[class].insert(position.number, QueuedWaiter { call, deadline, waker });
                None
            }
        }
    }

    /// Whether a waiter has this position.
    pub(crate) fn holds(&self, position: QueuePosition) -> bool {
        let class = position.class.index();
        self.waiting[class].contains_key(&position.number) || self.notified[class].contains_key(&position.number)
    }

    /// Removes a waiter, notified or not. Returns a waker to drop outside the lock.
    pub(crate) fn remove(&mut self, position: QueuePosition) -> Option<Waker> {
        self.arrive(position);
        self.take_out(position).map(|waiter| waiter.waker)
    }

    fn take_out(&mut self, position: QueuePosition) -> Option<QueuedWaiter<A>> {
        let waiter = self.waiting[position.class.index()].remove(&position.number)?;
        self.deadlines -= usize::from(waiter.deadline.is_some());
        Some(waiter)
    }

    /// Notes that a waiter is polled. `None` if it had not been notified. Any notified waiter that is polled sets the batch
    /// back to one.
    pub(crate) fn arrive(&mut self, position: QueuePosition) -> Option<Arrival> {
        let called = self.notified[position.class.index()].remove(&position.number)?;
        self.batch = 1;
        Some(match called {
            Notified::Late => Arrival::Late,
            Notified::Rejected { retry_after } => Arrival::Rejected { retry_after },
            Notified::Counted(_) => {
                self.counted[position.class.index()] -= 1;
                Arrival::InTime
            }
        })
    }

    /// The next waiter: that of the class with the lowest turn, and in the class the one with the lowest number.
    pub(crate) fn head(&self) -> Option<(QueuePosition, A)> {
        let class = (0..CLASSES)
            .filter(|class| !self.waiting[*class].is_empty())
            .min_by_key(|class| self.turn[*class] + u64::from(self.counted[*class]) * Priority::ALL[*class].stride())?;
        let (number, waiter) = self.waiting[class].first_key_value()?;
        Some((QueuePosition { class: Priority::ALL[class], number: *number }, waiter.call))
    }

    /// How many notified calls count as admitted when the policy decides on the head. A batch counts as one call.
    pub(crate) fn ahead(&self) -> usize {
        self.counted.iter().sum::<u32>().saturating_sub(self.batch - 1) as usize
    }

    /// Notifies a waiter. Returns its waker, to be woken outside the lock.
    pub(crate) fn notify(&mut self, position: QueuePosition, now: Instant) -> Option<Waker> {
        let waiter = self.take_out(position)?;
        self.notified[position.class.index()].insert(position.number, Notified::Counted(now));
        self.counted[position.class.index()] += 1;
        self.notifications.push_back((position, now));
        Some(waiter.waker)
    }

    /// Notifies up to `most` waiters that the key is closed. They keep their positions until they are polled. Returns true if
    /// there may be more.
    pub(crate) fn notify_closed(&mut self, most: usize, wakers: &mut Vec<Waker>) -> bool {
        for class in 0..CLASSES {
            while let Some((number, _)) = self.waiting[class].first_key_value() {
                wakers.extend(self.notify_rejected(QueuePosition { class: Priority::ALL[class], number: *number }));
                if wakers.len() >= most {
                    return true;
                }
            }
        }
        false
    }

    /// Notifies one waiter that it does not go. It keeps its position until it is polled.
    pub(crate) fn notify_rejected(&mut self, position: QueuePosition) -> Option<Waker> {
        let waiter = self.take_out(position)?;
        self.notified[position.class.index()].insert(position.number, Notified::Late);
        Some(waiter.waker)
    }

    /// Whether a waiter has a deadline.
    pub(crate) fn has_deadlines(&self) -> bool {
        self.deadlines > 0 || !self.rejected.is_empty()
    }

    /// Takes the waiters out of the queue whose turn comes after their deadline. `late` gets a call, its deadline and how many
    /// go before it, and returns how long a call that is too late would have to wait.
    pub(crate) fn reject_late(&mut self, mut late: impl FnMut(&A, Instant, usize) -> Option<Duration>) {
        let mut ahead = self.counted.iter().sum::<u32>() as usize;
        for class in 0..CLASSES {
            let mut rejected = Vec::new();
            for (number, waiter) in &self.waiting[class] {
                match waiter.deadline.and_then(|deadline| late(&waiter.call, deadline, ahead)) {
                    Some(retry_after) => rejected.push((*number, retry_after)),
                    None => ahead += 1,
                }
            }
            for (number, retry_after) in rejected {
                let position = QueuePosition { class: Priority::ALL[class], number };
                if let Some(waiter) = self.take_out(position) {
                    self.notified[class].insert(number, Notified::Rejected { retry_after });
                    self.rejected.push(waiter.waker);
                }
            }
        }
    }

    /// Returns up to `most` wakers of rejected waiters in `wakers`. Returns true if there are more.
    pub(crate) fn take_rejected(&mut self, most: usize, wakers: &mut Vec<Waker>) -> bool {
        let rest = self.rejected.len().saturating_sub(most);
        wakers.extend(self.rejected.drain(rest..));
        rest > 0
    }

    /// The first of the next [`MAX_NOTIFIED`] waiters of a class whose call `is` accepts, from the highest class on.
    pub(crate) fn find(&self, is: impl Fn(&A) -> bool) -> Option<(QueuePosition, A)> {
        let each = |class: usize| {
            let next = self.waiting[class].iter().take(MAX_NOTIFIED as usize).find(|(_, waiter)| is(&waiter.call))?;
            Some((QueuePosition { class: Priority::ALL[class], number: *next.0 }, next.1.call))
        };
        (0..CLASSES).find_map(each)
    }

    /// The wakers of some waiters, to be woken without being notified. One that is polled is enough, and the first ones may
    /// not be.
    pub(crate) fn some_wakers(&self) -> Vec<Waker> {
        let waiters = self.waiting.iter().flat_map(BTreeMap::values);
        // A waker whose clone panics does not concern the others.
        let clone = |waiter: &QueuedWaiter<A>| catch_unwind(AssertUnwindSafe(|| waiter.waker.clone())).ok();
        waiters.take(MAX_NOTIFIED as usize).filter_map(clone).collect()
    }

    /// Charges a class for an admission while other calls wait.
    pub(crate) fn charge(&mut self, class: Priority) {
        self.clock = self.turn[class.index()];
        self.turn[class.index()] += class.stride();
    }

    /// Stops counting waiters that were notified and not polled within [`CLAIM_TIMEOUT`].
    pub(crate) fn expire(&mut self, now: Instant) {
        let mut silent = false;
        while let Some((position, at)) = self.notifications.front().copied() {
            let pending = self.is_pending(position, at);
            if pending && at + CLAIM_TIMEOUT > now {
                break;
            }
            self.notifications.pop_front();
            if pending {
                self.notified[position.class.index()].insert(position.number, Notified::Late);
                self.counted[position.class.index()] -= 1;
                silent = true;
            }
        }
        if silent {
            self.batch = (self.batch * 2).min(MAX_NOTIFIED);
        }
    }

    /// When the next notified waiter stops counting.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let pending = |(position, at): &&(QueuePosition, Instant)| self.is_pending(*position, *at);
        self.notifications.iter().find(pending).map(|(_, at)| *at + CLAIM_TIMEOUT)
    }

    /// Whether a waiter that was notified at this time still counts.
    fn is_pending(&self, position: QueuePosition, at: Instant) -> bool {
        self.notified[position.class.index()].get(&position.number) == Some(&Notified::Counted(at))
    }
}
