//! Values by key, at most so many: what was used longest ago is removed first, and what is in use is never removed.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use crate::request::QuotaKey;

/// Each new key pays for so many looks at keys that turn out to be in use; what is not needed is saved up.
const LOOKS: usize = 8;
/// With each new key, so many of those that were worth keeping are looked at again.
const SECOND_LOOKS: usize = 2;

/// Whether a value may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Never.
    InUse,
    /// Only when there is nothing else to remove.
    WorthKeeping,
    /// Yes.
    Idle,
}

/// A bounded map that forgets what was used longest ago. A look-up is one access to a hash map, a new key some to a
/// `BTreeMap`.
///
/// Each entry has one position in `plain` or in `kept`: the number of the use that it was put there with. A look-up
/// changes only the entry; an entry that was used since is put into its right place when its position comes up.
#[derive(Debug)]
pub(crate) struct KeyMap<V> {
    max: usize,
    entries: HashMap<QuotaKey, Entry<V>>,
    plain: BTreeMap<u64, QuotaKey>,
    /// Those that were worth keeping when they were last looked at.
    kept: BTreeMap<u64, QuotaKey>,
    /// The position in `kept` that was looked at last.
    looked_at: u64,
    uses: u64,
    /// How many looks at keys in use have been saved up.
    looks: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    /// Its last use.
    used: u64,
    /// Where it is in `plain` or in `kept`: at its last use, or at an earlier one.
    position: u64,
}

impl<V> Entry<V> {
    /// Uses the entry, and gives it the position of this use.
    fn move_to(&mut self, position: u64) -> u64 {
        (self.used, self.position) = (position, position);
        position
    }
}

impl<V> KeyMap<V> {
    /// A map of at most `max` keys; 0 counts as 1.
    pub(crate) fn new(max: usize) -> Self {
        let max = max.max(1);
        Self {
            max,
            entries: HashMap::new(),
            plain: BTreeMap::new(),
            kept: BTreeMap::new(),
            looked_at: 0,
            uses: 0,
            looks: max,
        }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Changes the most that are remembered. What is too much is removed when the next new key comes.
    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max.max(1);
        self.looks = self.max.max(self.entries.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|entry| &entry.value)
    }

    /// A key's value, without using it.
    pub(crate) fn peek(&self, key: QuotaKey) -> Option<&V> {
        self.entries.get(&key).map(|entry| &entry.value)
    }

    /// A key's value, which is used now.
    pub(crate) fn get(&mut self, key: QuotaKey) -> Option<&mut V> {
        let entry = self.entries.get_mut(&key)?;
        self.uses += 1;
        entry.used = self.uses;
        Some(&mut entry.value)
    }

    /// Remembers a new key. Call [`make_room`](Self::make_room) first.
    pub(crate) fn insert(&mut self, key: QuotaKey, value: V) {
        self.uses += 1;
        self.plain.insert(self.uses, key);
        self.entries.insert(key, Entry { value, used: self.uses, position: self.uses });
    }

    pub(crate) fn remove(&mut self, key: QuotaKey) -> Option<V> {
        let entry = self.entries.remove(&key)?;
        self.plain.remove(&entry.position).or_else(|| self.kept.remove(&entry.position));
        Some(entry.value)
    }

    /// Removes what has to go so that one more key fits. False: all keys that were looked at are in use.
    ///
    /// The removed values are returned, to be dropped outside a lock.
    pub(crate) fn make_room(&mut self, standing: impl Fn(&V) -> Standing) -> (Vec<(QuotaKey, V)>, bool) {
        let mut removed = Vec::new();
        self.looks = (self.looks + LOOKS).min(self.max.max(self.entries.len()));
        if self.entries.len() >= self.max {
            self.look_again(&standing);
        }
        while self.entries.len() >= self.max {
            let Some(key) = self.next_idle(&standing).or_else(|| self.next_kept(&standing)) else {
                return (removed, false);
            };
            removed.extend(self.entries.remove(&key).map(|entry| (key, entry.value)));
        }
        (removed, true)
    }

    /// What is not worth keeping any more goes back to where its last use puts it.
    fn look_again(&mut self, standing: &impl Fn(&V) -> Standing) {
        for _ in 0..SECOND_LOOKS {
            let after = (Bound::Excluded(self.looked_at), Bound::Unbounded);
            let next = self.kept.range(after).next().or_else(|| self.kept.first_key_value());
            let Some((&position, &key)) = next else { return };
            self.looked_at = position;
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.used != position || standing(&entry.value) != Standing::WorthKeeping {
                self.kept.remove(&position);
                self.plain.insert(entry.move_to(entry.used), key);
            }
        }
    }

    /// Takes the position of the key that is neither in use nor worth keeping, and was used longest ago.
    fn next_idle(&mut self, standing: &impl Fn(&V) -> Standing) -> Option<QuotaKey> {
        let newest = self.uses;
        while let Some(position) = self.plain.first_entry().filter(|first| *first.key() <= newest) {
            let (position, key) = position.remove_entry();
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.used != position {
                self.plain.insert(entry.move_to(entry.used), key);
                continue;
            }
            match standing(&entry.value) {
                Standing::Idle => return Some(key),
                Standing::WorthKeeping => {
                    self.kept.insert(position, key);
                }
                Standing::InUse => {
                    self.uses += 1;
                    self.plain.insert(entry.move_to(self.uses), key);
                    self.looks = self.looks.checked_sub(1)?;
                }
            }
        }
        None
    }

    /// Takes the position of the key that was used longest ago among those that were worth keeping.
    fn next_kept(&mut self, standing: &impl Fn(&V) -> Standing) -> Option<QuotaKey> {
        while let Some((position, key)) = self.kept.pop_first() {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.used != position {
                self.kept.insert(entry.move_to(entry.used), key);
            } else if standing(&entry.value) == Standing::InUse {
                self.uses += 1;
                self.plain.insert(entry.move_to(self.uses), key);
                self.looks = self.looks.checked_sub(1)?;
            } else {
                return Some(key);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Idle, InUse, WorthKeeping};

    fn key(n: u64) -> QuotaKey {
        QuotaKey::from_hash(n)
    }

    /// Adds a key; the keys that had to go, or none if it does not fit.
    fn add(map: &mut KeyMap<Standing>, n: u64, standing: Standing) -> Option<Vec<u64>> {
        let (removed, fits) = map.make_room(|standing| *standing);
        if fits {
            map.insert(key(n), standing);
        }
        assert_eq!(map.plain.len() + map.kept.len(), map.len(), "one position each");
        fits.then(|| removed.into_iter().map(|(key, _)| key.hash()).collect())
    }

    fn map(max: usize, standings: &[Standing]) -> KeyMap<Standing> {
        let mut map = KeyMap::new(max);
        for (n, standing) in (1..).zip(standings) {
            assert_eq!(add(&mut map, n, *standing), Some(vec![]));
        }
        map
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut map = map(3, &[Idle, Idle, Idle]);
        map.get(key(1));
        assert!(map.peek(key(2)).is_some(), "a peek is no use");
        let gone: Vec<_> = (4..8).map(|n| add(&mut map, n, Idle).unwrap()).collect();
        assert_eq!(gone, [[2], [3], [1], [4]]);
    }

    #[test]
    fn what_is_in_use_stays_and_what_is_worth_keeping_goes_last() {
        let mut map = map(4, &[InUse, WorthKeeping, Idle, Idle]);
        let gone: Vec<_> = (5..9).map(|n| add(&mut map, n, InUse)).collect();
        assert_eq!(gone, [Some(vec![3]), Some(vec![4]), Some(vec![2]), None]);
        *map.get(key(6)).unwrap() = Idle;
        assert_eq!(add(&mut map, 9, InUse), Some(vec![6]));
    }

    #[test]
    fn what_is_not_worth_keeping_any_more_goes_before_what_was_used_later() {
        let mut map = map(3, &[WorthKeeping, Idle, Idle]);
        assert_eq!(add(&mut map, 4, Idle), Some(vec![2]));
        // Nobody calls it: its time has passed.
        map.entries.get_mut(&key(1)).unwrap().value = Idle;
        assert_eq!(add(&mut map, 5, Idle), Some(vec![1]));
    }

    #[test]
    fn one_idle_key_is_found_among_ten_thousand_in_use() {
        let mut map = map(10_000, &[InUse; 10_000]);
        *map.get(key(10_000)).unwrap() = Idle;
        assert_eq!(add(&mut map, 10_001, InUse), Some(vec![10_000]));
    }

    #[test]
    fn keys_that_are_all_in_use_are_not_looked_at_over_and_over() {
        let mut map = map(10_000, &[InUse; 10_000]);
        let looks = std::cell::Cell::new(0);
        for _ in 0..10_000 {
            let (removed, fits) = map.make_room(|standing| {
                looks.set(looks.get() + 1);
                *standing
            });
            assert!(removed.is_empty() && !fits);
        }
        assert!(looks.get() <= 10_000 * (2 + LOOKS), "{}", looks.get());
    }

    #[test]
    fn a_smaller_bound_holds_from_the_next_new_key_on() {
        let mut map = map(5, &[Idle, InUse, Idle, Idle, Idle]);
        map.set_max(0);
        assert_eq!((map.max(), map.len()), (1, 5));
        assert_eq!(add(&mut map, 6, Idle), None, "the one that is in use is all that fits");
        assert_eq!(map.len(), 1);
        assert_eq!(map.remove(key(2)), Some(InUse));
        assert_eq!(add(&mut map, 7, Idle), Some(vec![]));
    }
}
