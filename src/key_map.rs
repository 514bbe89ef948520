//! A bounded map by key. The least recently used value is removed first; a value in use is never removed.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use crate::request::QuotaKey;

/// The number of keys in use that an insertion may check. Unused checks are saved for later insertions.
const LOOKS: usize = 8;
/// The number of keys worth keeping that are checked again per insertion.
const SECOND_LOOKS: usize = 2;

/// Whether a value may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The value is in use and is not removed.
    InUse,
    /// The value is removed only if no idle value is left.
    WorthKeeping,
    /// The value may be removed.
    Idle,
}

/// A bounded map that removes the least recently used values.
///
/// A look-up is one access to a hash map. An insertion adds accesses to a `BTreeMap`.
///
/// Each entry has one position in `plain` or in `kept`: the number of the use at which it was placed. A look-up updates
/// only the entry. An entry that was used since is moved when its position is reached.
#[derive(Debug)]
pub(crate) struct KeyMap<V> {
    max: usize,
    entries: HashMap<QuotaKey, Entry<V>>,
    plain: BTreeMap<u64, QuotaKey>,
    /// The entries that were worth keeping at their last check.
    kept: BTreeMap<u64, QuotaKey>,
    /// The last position in `kept` that was checked again.
    looked_at: u64,
    uses: u64,
    /// The number of saved checks.
    looks: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    /// The number of the last use.
    used: u64,
    /// The position in `plain` or `kept`. It is the number of the last use or of an earlier one.
    position: u64,
}

impl<V> Entry<V> {
    /// Sets the last use and the position of the entry.
    fn move_to(&mut self, position: u64) -> u64 {
        (self.used, self.position) = (position, position);
        position
    }
}

impl<V> KeyMap<V> {
    /// Creates a map of at most `max` keys. 0 counts as 1.
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

    /// Sets the maximum number of keys. Excess keys are removed at the next insertion.
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

    /// Returns a key's value without counting as a use.
    pub(crate) fn peek(&self, key: QuotaKey) -> Option<&V> {
        self.entries.get(&key).map(|entry| &entry.value)
    }

    /// Returns a key's value and counts as a use.
    pub(crate) fn get(&mut self, key: QuotaKey) -> Option<&mut V> {
        let entry = self.entries.get_mut(&key)?;
        self.uses += 1;
        entry.used = self.uses;
        Some(&mut entry.value)
    }

    /// Inserts a new key. Call [`make_room`](Self::make_room) first.
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

    /// Removes values until one more key fits. Returns false if all keys that were checked are in use.
    ///
    /// Drop the returned values outside of a lock.
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

    /// Moves entries that are not worth keeping any more back to the position of their last use.
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

    /// Takes the position of the least recently used key that is idle.
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

    /// Takes the position of the least recently used key that was worth keeping.
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

    /// Adds a key. Returns the removed keys, or `None` if the key does not fit.
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
        // The key becomes idle without a use.
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
