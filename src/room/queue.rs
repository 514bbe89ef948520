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
use crate::call::Priority;

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
}

/// One waiter: what it wants, and how to wake it.
#[derive(Debug)]
struct Waiter<A> {
    ask: A,
    waker: Waker,
}

/// The waiters of one room.
#[derive(Debug)]
pub(crate) struct Queue<A> {
    waiting: [BTreeMap<u64, Waiter<A>>; CLASSES],
    absent: BTreeMap<Place, Option<Instant>>,
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
            absent: BTreeMap::new(),
            calls: VecDeque::new(),
            called: [0; CLASSES],
            turn: [0; CLASSES],
            clock: 0,
            batch: 1,
        }
    }

    /// How many wait, called or not.
    pub(crate) fn len(&self) -> usize {
        self.waiting.iter().map(BTreeMap::len).sum::<usize>() + self.absent.len()
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
    pub(crate) fn insert(&mut self, place: Place, ask: A, waker: Waker) -> Option<Waker> {
        let class = place.class.index();
        if self.waiting[class].is_empty() && self.called[class] == 0 {
            // Who was away earns no credit for the time it did not wait.
            self.turn[class] = self.turn[class].max(self.clock);
        }
        match self.waiting[class].get_mut(&place.number) {
            Some(waiter) => Some(std::mem::replace(&mut waiter.waker, waker)),
            None => {
                self.waiting[class].insert(place.number, Waiter { ask, waker });
                None
            }
        }
    }

    /// Whether somebody has this place.
    pub(crate) fn holds(&self, place: Place) -> bool {
        self.waiting[place.class.index()].contains_key(&place.number) || self.absent.contains_key(&place)
    }

    /// Takes a waiter out, wherever it is. Returns a waker to drop outside the lock.
    pub(crate) fn remove(&mut self, place: Place) -> Option<Waker> {
        self.came(place);
        self.waiting[place.class.index()].remove(&place.number).map(|waiter| waiter.waker)
    }

    /// Notes that a called waiter came, if it was one: whoever comes ends the search for somebody who does.
    pub(crate) fn came(&mut self, place: Place) -> Option<Came> {
        let called = self.absent.remove(&place)?;
        self.batch = 1;
        if called.is_none() {
            return Some(Came::Late);
        }
        self.called[place.class.index()] -= 1;
        Some(Came::Called)
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
        let waiter = self.waiting[place.class.index()].remove(&place.number)?;
        self.absent.insert(place, Some(now));
        self.called[place.class.index()] += 1;
        self.calls.push_back((place, now));
        Some(waiter.waker)
    }

    /// Takes up to `most` waiters out of the queue to be told that the key is closed; they keep their place until they come.
    pub(crate) fn dismiss(&mut self, most: usize, wakers: &mut Vec<Waker>) -> bool {
        for class in 0..CLASSES {
            while let Some((number, waiter)) = self.waiting[class].pop_first() {
                self.absent.insert(Place { class: Priority::ALL[class], number }, None);
                wakers.push(waiter.waker);
                if wakers.len() >= most {
                    return true;
                }
            }
        }
        false
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
            let pending = self.absent.get(&place) == Some(&Some(at));
            if pending && at + CLAIM > now {
                break;
            }
            self.calls.pop_front();
            if pending {
                self.absent.insert(place, None);
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
        let pending = |(place, at): &&(Place, Instant)| self.absent.get(place) == Some(&Some(*at));
        self.calls.iter().find(pending).map(|(_, at)| *at + CLAIM)
    }
}
