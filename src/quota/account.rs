//! Accounts: keys that share a plan or a balance. A closed account is remembered even if all its keys are forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::key_map::{KeyMap, Standing};
use crate::request::QuotaKey;
use crate::response::error_reply::ErrorReply;
use crate::time::add;

/// The accounts of all keys. At most as many closed accounts are remembered as keys.
#[derive(Debug)]
pub(super) struct Accounts {
    /// The hashes of an account and of a key of it.
    members: BTreeSet<(u64, u64)>,
    closed: KeyMap<Closure>,
}

/// The plan or the balance of an account is used up.
#[derive(Debug)]
struct Closure {
    /// A new key of the account may send a probe from this moment on.
    probe_at: Instant,
    wait: Duration,
    /// The server's error.
    reply: Arc<ErrorReply>,
}

/// The state that a new key of a closed account starts with.
pub(super) struct Inherited {
    /// The time until the key may send a probe.
    pub(super) left: Duration,
    /// The time between its probes after that.
    pub(super) wait: Duration,
    pub(super) reply: Arc<ErrorReply>,
}

impl Accounts {
    pub(super) fn new(max: usize) -> Self {
        Self { members: BTreeSet::new(), closed: KeyMap::new(max) }
    }

    pub(super) fn set_max(&mut self, max: usize) {
        self.closed.set_max(max);
    }

    pub(super) fn join(&mut self, account: QuotaKey, key: QuotaKey) {
        self.members.insert((account.hash(), key.hash()));
    }

    pub(super) fn leave(&mut self, account: QuotaKey, key: QuotaKey) {
        self.members.remove(&(account.hash(), key.hash()));
    }

    /// Returns the keys of an account.
    pub(super) fn members(&self, account: QuotaKey) -> impl Iterator<Item = QuotaKey> {
        let account = account.hash();
        self.members.range((account, 0)..=(account, u64::MAX)).map(|(_, key)| QuotaKey::from_hash(*key))
    }

    /// Closes an account for this long, because the server says that it is exhausted.
    pub(super) fn close(&mut self, account: QuotaKey, now: Instant, wait: Duration, reply: &Arc<ErrorReply>) {
        let probe_at = add(now, wait);
        if let Some(closure) = self.closed.get(account) {
            (closure.probe_at, closure.wait) = (closure.probe_at.max(probe_at), closure.wait.max(wait));
            return;
        }
        self.closed.make_room(|_| Standing::Idle);
        self.closed.insert(account, Closure { probe_at, wait, reply: Arc::clone(reply) });
    }

    /// Opens an account, because one of its calls succeeded.
    pub(super) fn open(&mut self, account: QuotaKey) {
        self.closed.remove(account);
    }

    /// Returns the state that a new key of a closed account starts with. If a probe is due, the first new key sends it.
    pub(super) fn inherit(&mut self, account: QuotaKey, now: Instant) -> Option<Inherited> {
        let closure = self.closed.get(account)?;
        let left = closure.probe_at.saturating_duration_since(now);
        if left.is_zero() {
            closure.probe_at = add(now, closure.wait);
        }
        Some(Inherited { left, wait: closure.wait, reply: Arc::clone(&closure.reply) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reply() -> Arc<ErrorReply> {
        Arc::new(ErrorReply::new(crate::Verdict::new(crate::classify::Kind::QuotaExhausted), b""))
    }

    fn inherited(accounts: &mut Accounts, account: QuotaKey, now: Instant) -> Option<(Duration, Duration)> {
        accounts.inherit(account, now).map(|inherited| (inherited.left, inherited.wait))
    }

    fn key(n: u64) -> QuotaKey {
        QuotaKey::from_hash(n)
    }

    #[test]
    fn keys_are_found_by_their_account() {
        let mut accounts = Accounts::new(10);
        for (account, member) in [(1, 11), (2, 21), (1, 12), (u64::MAX, u64::MAX)] {
            accounts.join(key(account), key(member));
        }
        let members = |accounts: &Accounts, n| accounts.members(key(n)).map(QuotaKey::hash).collect::<Vec<_>>();
        assert_eq!((members(&accounts, 1), members(&accounts, u64::MAX)), (vec![11, 12], vec![u64::MAX]));
        accounts.leave(key(1), key(11));
        assert_eq!((members(&accounts, 1), members(&accounts, 2), members(&accounts, 3)), (vec![12], vec![21], vec![]));
    }

    #[test]
    fn a_closed_account_is_remembered_without_keys_until_it_opens() {
        let mut accounts = Accounts::new(10);
        let now = Instant::now();
        assert_eq!(inherited(&mut accounts, key(1), now), None);
        accounts.close(key(1), now, 30 * SECOND, &reply());
        assert_eq!(inherited(&mut accounts, key(1), now + 10 * SECOND), Some((20 * SECOND, 30 * SECOND)));
        accounts.close(key(1), now + SECOND, SECOND, &reply());
        assert_eq!(
            inherited(&mut accounts, key(1), now + 10 * SECOND),
            Some((20 * SECOND, 30 * SECOND)),
            "never shorter"
        );
        accounts.open(key(1));
        assert_eq!(inherited(&mut accounts, key(1), now), None);
    }

    #[test]
    fn of_several_new_keys_one_sends_the_probe_that_is_due() {
        let mut accounts = Accounts::new(10);
        let now = Instant::now();
        accounts.close(key(1), now, 30 * SECOND, &reply());
        let due = now + 31 * SECOND;
        let inherited = [(); 3].map(|()| inherited(&mut accounts, key(1), due).unwrap().0);
        assert_eq!(inherited, [Duration::ZERO, 30 * SECOND, 30 * SECOND]);
    }

    #[test]
    fn so_many_closed_accounts_are_remembered() {
        let mut accounts = Accounts::new(3);
        let now = Instant::now();
        for n in 0..1_000 {
            accounts.close(key(n), now, SECOND, &reply());
        }
        assert_eq!(accounts.closed.len(), 3);
        assert!(inherited(&mut accounts, key(996), now).is_none() && inherited(&mut accounts, key(997), now).is_some());
    }
}
