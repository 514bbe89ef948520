//! Who waits, in which order, and who has been called: plain data without clocks, locks or wakers of its own making.
//!
//! A waiter is in one of two maps. `waiting` holds those who are to be called, by class and number. `absent` holds those
//! who were called and have not come yet; after [`CLAIM`] they no longer count, but keep their number and their place.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::Place;
use crate::request::Priority;

/// How long a waiter that was woken may take to come before the next one is called: 20 ms.
pub(crate) const CLAIM: Duration = Duration::from_millis(20);
/// How many may be called at once for one slot when those called before stayed silent.
pub(crate) const MAX_CALLED: u32 = 64;

const CLASSES: usize = Priority::ALL.len();

/// How a waiter that was called came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// In time: the slot it was called for is its own.
    Called,
    /// After it had stopped counting, or to be told that the key has closed.
    Late,
    /// To be told that its turn does not come before its deadline, but after so long.
    Rejected { retry_after: Duration },
}

/// A waiter that has been taken out of the queue and has not come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// Called at this moment, and counted as gone.
    Called(Instant),
    /// Not counted: it asks again when it comes.
    Late,
    /// Its turn comes after its deadline.
    Rejected { retry_after: Duration },
}

/// One waiter: what it wants, and how to wake it.
#[derive(Debug)]
struct Waiter<A> {
    ask: A,
    deadline: Option<Instant>,
    waker: Waker,
}

/// The waiters of one room.
#[derive(Debug)]
pub(crate) struct Queue<A> {
    waiting: [BTreeMap<u64, Waiter<A>>; CLASSES],
    absent: [BTreeMap<u64, Absent>; CLASSES],
    /// Those whose turn comes after their deadline, before they are woken.
    rejected: Vec<Waker>,
    /// How many waiters have a deadline.
    deadlines: usize,
    calls: VecDeque<(Place, Instant)>,
    called: [u32; CLASSES],
    turn: [u64; CLASSES],
    clock: u64,
    batch: u32,
}

impl<A: Copy> Queue<A> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Default::default(),
            absent: Default::default(),
            rejected: Vec::new(),
            deadlines: 0,
            calls: VecDeque::new(),
            called: [0; CLASSES],
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
        self.waiting[class.index()].len() + self.absent[class.index()].len()
    }

    /// Whether nobody is to be served before a newcomer.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.iter().all(BTreeMap::is_empty) && self.called.iter().all(|n| *n == 0)
    }

    /// How many are to be served before a newcomer of this class.
    pub(crate) fn before(&self, class: Priority) -> usize {
        let higher = &self.waiting[..=class.index()];
        higher.iter().map(BTreeMap::len).sum::<usize>() + self.called.iter().sum::<u32>() as usize
    }

    /// Puts a waiter into its place, or renews its waker. Returns a waker to drop outside the lock.
    pub(crate) fn insert(&mut self, place: Place, ask: A, deadline: Option<Instant>, waker: Waker) -> Option<Waker> {
        let class = place.class.index();
        if self.waiting[class].is_empty() && self.called[class] == 0 {
            // Who was away earns no credit for the time it did not wait.
            self.turn[class] = self.turn[class].max(self.clock);
        }
        match self.waiting[class].get_mut(&place.number) {
            Some(waiter) => Some(std::mem::replace(&mut waiter.waker, waker)),
            None => {
                self.deadlines += usize::from(deadline.is_some());
                self.waiting[class].insert(place.number, Waiter { ask, deadline, waker });
                None
            }
        }
    }

    /// Whether somebody has this place.
    pub(crate) fn holds(&self, place: Place) -> bool {
        let class = place.class.index();
        self.waiting[class].contains_key(&place.number) || self.absent[class].contains_key(&place.number)
    }

    /// Takes a waiter out, wherever it is. Returns a waker to drop outside the lock.
    pub(crate) fn remove(&mut self, place: Place) -> Option<Waker> {
        self.came(place);
        self.take_out(place).map(|waiter| waiter.waker)
    }

    fn take_out(&mut self, place: Place) -> Option<Waiter<A>> {
        let waiter = self.waiting[place.class.index()].remove(&place.number)?;
        self.deadlines -= usize::from(waiter.deadline.is_some());
        Some(waiter)
    }

    /// Notes that a called waiter came, if it was one: whoever comes ends the search for somebody who does.
    pub(crate) fn came(&mut self, place: Place) -> Option<Came> {
        let called = self.absent[place.class.index()].remove(&place.number)?;
        self.batch = 1;
        Some(match called {
            Absent::Late => Came::Late,
            Absent::Rejected { retry_after } => Came::Rejected { retry_after },
            Absent::Called(_) => {
                self.called[place.class.index()] -= 1;
                Came::Called
            }
        })
    }

    /// Who is next: the lowest turn among the classes, the lowest number within.
    pub(crate) fn head(&self) -> Option<(Place, A)> {
        let class = (0..CLASSES)
            .filter(|class| !self.waiting[*class].is_empty())
            .min_by_key(|class| self.turn[*class] + u64::from(self.called[*class]) * Priority::ALL[*class].stride())?;
        let (number, waiter) = self.waiting[class].first_key_value()?;
        Some((Place { class: Priority::ALL[class], number: *number }, waiter.ask))
    }

    /// How many calls to count as gone already when the head is judged.
    pub(crate) fn ahead(&self) -> usize {
        self.called.iter().sum::<u32>().saturating_sub(self.batch - 1) as usize
    }

    /// Calls a waiter: its waker is for the caller to wake, outside the lock.
    pub(crate) fn call(&mut self, place: Place, now: Instant) -> Option<Waker> {
        let waiter = self.take_out(place)?;
        self.absent[place.class.index()].insert(place.number, Absent::Called(now));
        self.called[place.class.index()] += 1;
        self.calls.push_back((place, now));
        Some(waiter.waker)
    }

    /// Takes up to `most` waiters out of the queue to be told that the key is closed; they keep their place until they come.
    pub(crate) fn dismiss(&mut self, most: usize, wakers: &mut Vec<Waker>) -> bool {
        for class in 0..CLASSES {
            while let Some((number, _)) = self.waiting[class].first_key_value() {
                wakers.extend(self.dismiss_one(Place { class: Priority::ALL[class], number: *number }));
                if wakers.len() >= most {
                    return true;
                }
            }
        }
        false
    }

    /// Takes one waiter out of the queue, to be told that it does not go; it keeps its place until it comes.
    pub(crate) fn dismiss_one(&mut self, place: Place) -> Option<Waker> {
        let waiter = self.take_out(place)?;
        self.absent[place.class.index()].insert(place.number, Absent::Late);
        Some(waiter.waker)
    }

    /// Whether anybody waits who has a deadline.
    pub(crate) fn has_deadlines(&self) -> bool {
        self.deadlines > 0 || !self.rejected.is_empty()
    }

    /// Takes those out of the queue whose turn comes after their deadline: `late` is asked for each of them, with how many
    /// are to be served before it, and tells how long it would have to wait.
    pub(crate) fn reject_late(&mut self, mut late: impl FnMut(&A, Instant, usize) -> Option<Duration>) {
        let mut ahead = self.called.iter().sum::<u32>() as usize;
        for class in 0..CLASSES {
            let mut rejected = Vec::new();
            for (number, waiter) in &self.waiting[class] {
                match waiter.deadline.and_then(|deadline| late(&waiter.ask, deadline, ahead)) {
                    Some(retry_after) => rejected.push((*number, retry_after)),
                    None => ahead += 1,
                }
            }
            for (number, retry_after) in rejected {
                let place = Place { class: Priority::ALL[class], number };
                if let Some(waiter) = self.take_out(place) {
                    self.absent[class].insert(number, Absent::Rejected { retry_after });
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
    pub(crate) fn find(&self, is: impl Fn(&A) -> bool) -> Option<(Place, A)> {
        let each = |class: usize| {
            let next = self.waiting[class].iter().take(MAX_CALLED as usize).find(|(_, waiter)| is(&waiter.ask))?;
            Some((Place { class: Priority::ALL[class], number: *next.0 }, next.1.ask))
        };
        (0..CLASSES).find_map(each)
    }

    /// Some who wait, to be woken without being called: one is enough if it comes, and the first ones may be silent.
    pub(crate) fn messengers(&self) -> Vec<Waker> {
        let waiters = self.waiting.iter().flat_map(BTreeMap::values);
        // A clone that panics is its waiter's affair, and not that of who looks for messengers.
        let clone = |waiter: &Waiter<A>| catch_unwind(AssertUnwindSafe(|| waiter.waker.clone())).ok();
        waiters.take(MAX_CALLED as usize).filter_map(clone).collect()
    }

    /// Charges a class for an admission while others wait.
    pub(crate) fn charge(&mut self, class: Priority) {
        self.clock = self.turn[class.index()];
        self.turn[class.index()] += class.stride();
    }

    /// Stops counting those who were called and have not come.
    pub(crate) fn expire(&mut self, now: Instant) {
        let mut silent = false;
        while let Some((place, at)) = self.calls.front().copied() {
            let pending = self.is_pending(place, at);
            if pending && at + CLAIM > now {
                break;
            }
            self.calls.pop_front();
            if pending {
                self.absent[place.class.index()].insert(place.number, Absent::Late);
                self.called[place.class.index()] -= 1;
                silent = true;
            }
        }
        if silent {
            self.batch = (self.batch * 2).min(MAX_CALLED);
        }
    }

    /// When the next called waiter stops counting.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let pending = |(place, at): &&(Place, Instant)| self.is_pending(*place, *at);
        self.calls.iter().find(pending).map(|(_, at)| *at + CLAIM)
    }

    /// Whether a waiter that was called at this time still counts.
    fn is_pending(&self, place: Place, at: Instant) -> bool {
        self.absent[place.class.index()].get(&place.number) == Some(&Absent::Called(at))
    }
}
