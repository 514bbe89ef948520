//! Who waits, in which order, and who has been called: plain data without clocks, locks or wakers of its own making.
//!
//! A waiter is in one of two maps. `waiting` holds those who are to be called, by class and number. `notified` holds those
//! who were called and have not come yet; after [`CLAIM_TIMEOUT`] they no longer count, but keep their number and their position.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::QueuePosition;
use crate::request::Priority;

/// How long a waiter that was woken may take to come before the next one is called: 20 ms.
pub(crate) const CLAIM_TIMEOUT: Duration = Duration::from_millis(20);
/// How many may be called at once for one permit when those called before stayed silent.
pub(crate) const MAX_NOTIFIED: u32 = 64;

const CLASSES: usize = Priority::ALL.len();

/// How a waiter that was called came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// In time: the permit it was called for is its own.
    InTime,
    /// After it had stopped counting, or to be told that the key has closed.
    Late,
    /// To be told that its turn does not come before its deadline, but after so long.
    Rejected { retry_after: Duration },
}

/// A waiter that has been taken out of the queue and has not come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notified {
    /// Called at this moment, and counted as gone.
    Counted(Instant),
    /// Not counted: it asks again when it comes.
    Late,
    /// Its turn comes after its deadline.
    Rejected { retry_after: Duration },
}

/// One waiter: what it wants, and how to wake it.
#[derive(Debug)]
struct QueuedWaiter<A> {
    call: A,
    deadline: Option<Instant>,
    waker: Waker,
}

/// The waiters of one queue.
#[derive(Debug)]
pub(crate) struct WaitOrder<A> {
    waiting: [BTreeMap<u64, QueuedWaiter<A>>; CLASSES],
    notified: [BTreeMap<u64, Notified>; CLASSES],
    /// Those whose turn comes after their deadline, before they are woken.
    rejected: Vec<Waker>,
    /// How many waiters have a deadline.
    deadlines: usize,
    notifications: VecDeque<(QueuePosition, Instant)>,
    counted: [u32; CLASSES],
    turn: [u64; CLASSES],
    clock: u64,
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

    /// How many wait, called or not.
    pub(crate) fn len(&self) -> usize {
        Priority::ALL.into_iter().map(|class| self.len_of(class)).sum()
    }

    /// How many of this class wait, called or not.
    pub(crate) fn len_of(&self, class: Priority) -> usize {
        self.waiting[class.index()].len() + self.notified[class.index()].len()
    }

    /// Whether nobody is to be served before a newcomer.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.iter().all(BTreeMap::is_empty) && self.counted.iter().all(|n| *n == 0)
    }

    /// How many are to be served before a newcomer of this class.
    pub(crate) fn before(&self, class: Priority) -> usize {
        let higher = &self.waiting[..=class.index()];
        higher.iter().map(BTreeMap::len).sum::<usize>() + self.counted.iter().sum::<u32>() as usize
    }

    /// Puts a waiter into its position, or renews its waker. Returns a waker to drop outside the lock.
    pub(crate) fn insert(
        &mut self,
        position: QueuePosition,
        call: A,
        deadline: Option<Instant>,
        waker: Waker,
    ) -> Option<Waker> {
        let class = position.class.index();
        if self.waiting[class].is_empty() && self.counted[class] == 0 {
            // Who was away earns no credit for the time it did not wait.
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

    /// Whether somebody has this position.
    pub(crate) fn holds(&self, position: QueuePosition) -> bool {
        let class = position.class.index();
        self.waiting[class].contains_key(&position.number) || self.notified[class].contains_key(&position.number)
    }

    /// Takes a waiter out, wherever it is. Returns a waker to drop outside the lock.
    pub(crate) fn remove(&mut self, position: QueuePosition) -> Option<Waker> {
        self.arrive(position);
        self.take_out(position).map(|waiter| waiter.waker)
    }

    fn take_out(&mut self, position: QueuePosition) -> Option<QueuedWaiter<A>> {
        let waiter = self.waiting[position.class.index()].remove(&position.number)?;
        self.deadlines -= usize::from(waiter.deadline.is_some());
        Some(waiter)
    }

    /// Notes that a called waiter came, if it was one: whoever comes ends the search for somebody who does.
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

    /// Who is next: the lowest turn among the classes, the lowest number within.
    pub(crate) fn head(&self) -> Option<(QueuePosition, A)> {
        let class = (0..CLASSES)
            .filter(|class| !self.waiting[*class].is_empty())
            .min_by_key(|class| self.turn[*class] + u64::from(self.counted[*class]) * Priority::ALL[*class].stride())?;
        let (number, waiter) = self.waiting[class].first_key_value()?;
        Some((QueuePosition { class: Priority::ALL[class], number: *number }, waiter.call))
    }

    /// How many calls to count as gone already when the head is judged.
    pub(crate) fn ahead(&self) -> usize {
        self.counted.iter().sum::<u32>().saturating_sub(self.batch - 1) as usize
    }

    /// Calls a waiter: its waker is for the caller to wake, outside the lock.
    pub(crate) fn notify(&mut self, position: QueuePosition, now: Instant) -> Option<Waker> {
        let waiter = self.take_out(position)?;
        self.notified[position.class.index()].insert(position.number, Notified::Counted(now));
        self.counted[position.class.index()] += 1;
        self.notifications.push_back((position, now));
        Some(waiter.waker)
    }

    /// Takes up to `most` waiters out of the queue to be told that the key is closed; they keep their place until they come.
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

    /// Takes one waiter out of the queue, to be told that it does not go; it keeps its place until it comes.
    pub(crate) fn notify_rejected(&mut self, position: QueuePosition) -> Option<Waker> {
        let waiter = self.take_out(position)?;
        self.notified[position.class.index()].insert(position.number, Notified::Late);
        Some(waiter.waker)
    }

    /// Whether anybody waits who has a deadline.
    pub(crate) fn has_deadlines(&self) -> bool {
        self.deadlines > 0 || !self.rejected.is_empty()
    }

    /// Takes those out of the queue whose turn comes after their deadline: `late` is asked for each of them, with how many
    /// are to be served before it, and tells how long it would have to wait.
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

    /// Hands out up to so many wakers of those who were rejected. True: there are more.
    pub(crate) fn take_rejected(&mut self, most: usize, wakers: &mut Vec<Waker>) -> bool {
        let rest = self.rejected.len().saturating_sub(most);
        wakers.extend(self.rejected.drain(rest..));
        rest > 0
    }

    /// The first of the next few waiters that is of a kind.
    pub(crate) fn find(&self, is: impl Fn(&A) -> bool) -> Option<(QueuePosition, A)> {
        let each = |class: usize| {
            let next = self.waiting[class].iter().take(MAX_NOTIFIED as usize).find(|(_, waiter)| is(&waiter.call))?;
            Some((QueuePosition { class: Priority::ALL[class], number: *next.0 }, next.1.call))
        };
        (0..CLASSES).find_map(each)
    }

    /// Some who wait, to be woken without being called: one is enough if it comes, and the first ones may be silent.
    pub(crate) fn some_wakers(&self) -> Vec<Waker> {
        let waiters = self.waiting.iter().flat_map(BTreeMap::values);
        // A clone that panics is its waiter's affair, and not that of who looks for some_wakers.
        let clone = |waiter: &QueuedWaiter<A>| catch_unwind(AssertUnwindSafe(|| waiter.waker.clone())).ok();
        waiters.take(MAX_NOTIFIED as usize).filter_map(clone).collect()
    }

    /// Charges a class for an admission while others wait.
    pub(crate) fn charge(&mut self, class: Priority) {
        self.clock = self.turn[class.index()];
        self.turn[class.index()] += class.stride();
    }

    /// Stops counting those who were called and have not come.
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

    /// When the next called waiter stops counting.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let pending = |(position, at): &&(QueuePosition, Instant)| self.is_pending(*position, *at);
        self.notifications.iter().find(pending).map(|(_, at)| *at + CLAIM_TIMEOUT)
    }

    /// Whether a waiter that was called at this time still counts.
    fn is_pending(&self, position: QueuePosition, at: Instant) -> bool {
        self.notified[position.class.index()].get(&position.number) == Some(&Notified::Counted(at))
    }
}
