//! Accounts: keys that share a plan or a balance, and what is known of an account whatever becomes of its keys.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::key_map::{KeyMap, Standing};
use crate::request::QuotaKey;
use crate::response::error_reply::ErrorReply;
use crate::time::add;

/// The accounts of all keys.
///
/// A closed account is remembered when all its keys are forgotten; at most as many closed accounts as keys.
#[derive(Debug)]
pub(super) struct Accounts {
    /// The hashes of an account and of a key of it.
    members: BTreeSet<(u64, u64)>,
    closed: KeyMap<Closure>,
}

/// The plan or the balance of an account is used up.
#[derive(Debug)]
struct Closure {
    /// A key that is first met may send a probe then.
    probe_at: Instant,
    wait: Duration,
    /// What the server said.
    reply: Arc<ErrorReply>,
}

/// What a new key of a closed account begins with.
pub(super) struct Inherited {
    /// How long it may not send a probe.
    pub(super) left: Duration,
    /// How long its probes wait then.
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

    /// The keys of an account.
    pub(super) fn members(&self, account: QuotaKey) -> impl Iterator<Item = QuotaKey> {
        let account = account.hash();
        self.members.range((account, 0)..=(account, u64::MAX)).map(|(_, key)| QuotaKey::from_hash(*key))
    }

    /// The server says that the account is used up: its keys are not called for so long.
    pub(super) fn close(&mut self, account: QuotaKey, now: Instant, wait: Duration, reply: &Arc<ErrorReply>) {
        let probe_at = add(now, wait);
        if let Some(closure) = self.closed.get(account) {
            (closure.probe_at, closure.wait) = (closure.probe_at.max(probe_at), closure.wait.max(wait));
            return;
        }
        self.closed.make_room(|_| Standing::Idle);
        self.closed.insert(account, Closure { probe_at, wait, reply: Arc::clone(reply) });
    }

    /// A call of the account succeeded although it was closed.
    pub(super) fn open(&mut self, account: QuotaKey) {
        self.closed.remove(account);
    }

    /// What a new key of the account begins with, if the account is closed. Of several keys that are first met when a probe
    /// is due, the first one sends it.
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
