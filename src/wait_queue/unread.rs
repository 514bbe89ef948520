//! Keeps the permits of unread response bodies, and counts those that are lent. It is plain data.
//!
//! A caller that collects response heads before it reads a body would block every waiting call. Therefore the permit of
//! an unread body is *lent*: its policy stops counting it. It is never taken back.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// The default time that a response body may stay unread before its permit is lent to a waiting call: 1 s.
pub const DEFAULT_LEND_UNREAD_AFTER: Duration = Duration::from_secs(1);

/// One unread permit: the time from which it may be lent, and a number that makes equal times distinct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnreadKey {
    due: Instant,
    number: u64,
}

/// The unread permits of one queue, in the order in which they may be lent.
#[derive(Debug, Default)]
pub(super) struct Unread {
    permits: BTreeSet<UnreadKey>,
    next_number: u64,
}

impl Unread {
    /// Adds a permit whose body goes to the caller.
    pub(super) fn add(&mut self, due: Instant) -> UnreadKey {
        let key = UnreadKey { due, number: self.next_number };
        self.next_number += 1;
        self.permits.insert(key);
        key
    }

    /// Removes a permit whose body has been polled or has ended. Returns false if it has been lent.
    pub(super) fn remove(&mut self, key: UnreadKey) -> bool {
        self.permits.remove(&key)
    }

    /// Returns the time from which `count` permits may be lent. `None` for no permits, or for more than are unread.
    pub(super) fn due(&self, count: usize) -> Option<Instant> {
        let last = count.checked_sub(1).filter(|last| *last < self.permits.len())?;
        self.permits.iter().nth(last).map(|key| key.due)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.permits.len()
    }

    /// Removes the permit that has been unread for longest, because it is lent.
    pub(super) fn lend(&mut self) {
        self.permits.pop_first();
    }
}

/// Counts the permits that a policy has lent, and those still to be reported.
///
/// An episode begins when the first permit is lent and ends when the last one ends. It is reported once.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Lent {
    count: u32,
    unreported: Option<u32>,
}

impl Lent {
    /// Returns the number of permits that are lent now.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn lend(&mut self) {
        if self.count == 0 {
            self.unreported.get_or_insert(0);
        }
        self.count = self.count.saturating_add(1);
        if let Some(permits) = &mut self.unreported {
            *permits = permits.saturating_add(1);
        }
    }

    /// Records that a lent permit has ended.
    pub(crate) fn returned(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// Returns the number of permits lent, once per episode.
    pub(crate) fn report(&mut self) -> Option<u32> {
        self.unreported.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_due_in_order_of_time_and_then_of_arrival() {
        let now = Instant::now();
        let after = |secs| now + Duration::from_secs(secs);
        let mut unread = Unread::default();
        assert_eq!((unread.due(0), unread.due(1)), (None, None));
        let keys = [2, 1, 1, 3].map(|secs| unread.add(after(secs)));
        let due: Vec<_> = (0..=5).map(|count| unread.due(count)).collect();
        assert_eq!(due, [None, Some(after(1)), Some(after(1)), Some(after(2)), Some(after(3)), None]);
        unread.lend();
        assert_eq!(keys.map(|key| unread.remove(key)), [true, false, true, true]);
        assert_eq!(unread.due(1), None);
        assert!(!unread.remove(keys[0]), "removed once");
    }

    #[test]
    fn an_episode_is_reported_once_with_all_that_were_lent_until_then() {
        let mut lent = Lent::default();
        assert_eq!(lent.report(), None);
        lent.lend();
        lent.lend();
        assert_eq!((lent.report(), lent.report()), (Some(2), None));
        lent.lend();
        lent.returned();
        lent.lend();
        assert_eq!((lent.count(), lent.report()), (3, None));
        (0..3).for_each(|_| lent.returned());
        lent.lend();
        lent.returned();
        lent.lend();
        assert_eq!((lent.count(), lent.report(), lent.report()), (1, Some(2), None));
    }
}
