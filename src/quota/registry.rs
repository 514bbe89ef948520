//! The controllers by key. A controller is created when its key is first used, up to a maximum number of keys.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::account::{Accounts, Inherited};
use super::state::KeyState;
use super::{Controller, ControllerConfig};
use crate::dialect::Dialect;
use crate::key_map::{KeyMap, Standing};
use crate::request::QuotaKey;
use crate::response::error_reply::ErrorReply;
use crate::wait_queue::WaitQueue;

/// The default of [`max_keys`](crate::RetryOn429Layer::max_keys): at most 10,240 keys are remembered. A forgotten key behaves
/// as new.
///
/// The key that was used longest ago is forgotten first. A key that cools down, is closed or has a learned concurrency cap is
/// forgotten last. A key that a call is using is never forgotten. While all keys are in use, the calls of another key are not
/// remembered, and a [`QuotaEvent::TooManyKeys`](crate::QuotaEvent::TooManyKeys) reports it.
pub const MAX_KEYS: usize = 10_240;
/// A call that is not remembered is reported if no other was for this long: a minute.
const REPORT_AGAIN: Duration = Duration::from_secs(60);

/// The state of a [`RetryOn429Layer`](crate::RetryOn429Layer), shared by all services that the layer makes.
///
/// It is cheap to clone. [`with_quotas`](crate::RetryOn429Layer::with_quotas) shares it with another layer.
///
/// ```
/// use tower_429::RetryOn429Layer;
///
/// let chat = RetryOn429Layer::new();
/// let embeddings = RetryOn429Layer::new().max_retries(8).with_quotas(chat.quotas());
/// # let _ = embeddings;
/// ```
#[derive(Clone, Default)]
pub struct Quotas {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    keys: Mutex<Keys>,
    /// The source of all other generators, so that a seeded layer is reproducible.
    seed: Mutex<Option<Rng>>,
}

struct Keys {
    controllers: KeyMap<Known>,
    accounts: Accounts,
    /// The last time a call was not remembered.
    left_out: Option<Instant>,
}

struct Known {
    controller: Arc<WaitQueue<Controller>>,
    /// The keys that share a plan and a balance have the same account.
    account: QuotaKey,
}

/// The controller of a call's key.
pub(crate) struct Found {
    pub(crate) controller: Arc<WaitQueue<Controller>>,
    pub(crate) account: QuotaKey,
    /// The maximum number of keys, if all are in use, so that this controller is not remembered. Set for the first such call
    /// in a while.
    pub(crate) too_many: Option<usize>,
}

/// What the controller of a new key needs.
pub(crate) struct Origin {
    pub(crate) dialect: &'static Dialect,
    /// The key without its pool. A user's own key is an account of its own.
    pub(crate) account: QuotaKey,
}

/// The beliefs about one key at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySnapshot {
    /// The number of calls in flight, each to the end of its body.
    pub in_flight: u32,
    /// The number of calls that may be in flight at once.
    pub window: u32,
    /// The number of calls in the key's queue.
    pub queued: usize,
    /// Whether the key is open, cooling down or closed.
    pub state: KeyState,
}

impl Default for Keys {
    fn default() -> Self {
        Self { controllers: KeyMap::new(MAX_KEYS), accounts: Accounts::new(MAX_KEYS), left_out: None }
    }
}

impl Quotas {
    /// Returns the beliefs about a key, or `None` if no call has used the key.
    pub fn snapshot(&self, key: QuotaKey) -> Option<KeySnapshot> {
        let controller = Arc::clone(&self.keys().controllers.peek(key)?.controller);
        let now = Instant::now();
        let queued = controller.queued();
        Some(controller.read(|controller| KeySnapshot {
            in_flight: controller.in_flight(),
            window: controller.window(),
            queued,
            state: controller.state(now),
        }))
    }

    /// Forgets all beliefs about a key: its cooldown, its closure, and what was learned of its limits.
    ///
    /// The next call of the key is handled as the first call of a new key, and calls that wait for a cooldown go on. Calls in
    /// flight are not interrupted. No event is reported. If the key's account is closed, the key closes again: use
    /// [`forget_account`](Self::forget_account), for example after topping up a balance.
    ///
    /// Returns whether the key was known.
    pub fn forget(&self, key: QuotaKey) -> bool {
        let removed = self.keys().remove(key);
        let known = removed.is_some();
        release(removed);
        known
    }

    /// Forgets all beliefs about the account of a key, and about all its keys, as [`forget`](Self::forget) does for one.
    ///
    /// The account of a key is host and credential, without the model. Returns how many keys were known.
    pub fn forget_account(&self, key: QuotaKey) -> usize {
        let mut keys = self.keys();
        let Some(account) = keys.controllers.peek(key).map(|known| known.account) else { return 0 };
        keys.accounts.open(account);
        let members: Vec<_> = keys.accounts.members(account).collect();
        let removed: Vec<_> = members.into_iter().filter_map(|member| keys.remove(member)).collect();
        drop(keys);
        let known = removed.len();
        release(removed);
        known
    }

    /// Returns the number of keys that are remembered.
    pub fn len(&self) -> usize {
        self.keys().controllers.len()
    }

    /// Returns whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn seed(&self, seed: u64) {
        *self.shared.seed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Rng::with_seed(seed));
    }

    pub(crate) fn set_max_keys(&self, max: usize) {
        let mut keys = self.keys();
        keys.controllers.set_max(max);
        keys.accounts.set_max(max);
    }

    /// Finds the controller of a key, or creates it.
    pub(crate) fn controller(
        &self,
        key: QuotaKey,
        config: &Arc<ControllerConfig>,
        origin: impl FnOnce() -> Origin,
    ) -> Found {
        let mut keys = self.keys();
        if let Some(Known { controller, account }) = keys.controllers.get(key) {
            return Found { controller: Arc::clone(controller), account: *account, too_many: None };
        }
        let now = Instant::now();
        let Origin { dialect, account } = origin();
        let controller = WaitQueue::new(Controller::new(Arc::clone(config), dialect, self.rng(), now));
        let (removed, fits) = keys.controllers.make_room(|known| known.standing(now));
        for (key, known) in &removed {
            keys.accounts.leave(known.account, *key);
        }
        let mut too_many = None;
        if fits {
            keys.controllers.insert(key, Known { controller: Arc::clone(&controller), account });
            keys.accounts.join(account, key);
        } else {
            let last = keys.left_out.replace(now);
            too_many = last.is_none_or(|last| now >= last + REPORT_AGAIN).then(|| keys.controllers.max());
        }
        let closed = keys.accounts.inherit(account, now);
        drop(keys);
        drop(removed); // outside the lock: it may be much
        if let Some(Inherited { left, wait, reply }) = closed {
            controller.update(|controller, now| {
                controller.inherit(now, (left, wait));
                controller.remember(&reply);
            });
        }
        Found { controller, account, too_many }
    }

    /// Closes an account. Returns its other remembered keys, which have to be updated.
    pub(crate) fn close_account(
        &self,
        account: QuotaKey,
        key: QuotaKey,
        wait: Duration,
        reply: &Arc<ErrorReply>,
    ) -> Vec<Member> {
        let mut keys = self.keys();
        keys.accounts.close(account, Instant::now(), wait, reply);
        keys.others(account, key)
    }

    /// Opens an account, if it was closed. Returns its other remembered keys, which have to be updated.
    pub(crate) fn open_account(&self, account: QuotaKey, key: QuotaKey) -> Vec<Member> {
        let mut keys = self.keys();
        keys.accounts.open(account);
        keys.others(account, key)
    }

    /// Makes a random generator, from the seed if there is one.
    pub(crate) fn rng(&self) -> Rng {
        let mut seed = self.shared.seed.lock().unwrap_or_else(PoisonError::into_inner);
        seed.as_mut().map_or_else(Rng::new, Rng::fork)
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key of an account and its controller. Holding it does not count as a use of the key.
pub(crate) type Member = (QuotaKey, Weak<WaitQueue<Controller>>);

/// Lets the calls go that wait for forgotten keys. It runs without the registry's lock.
fn release(removed: impl IntoIterator<Item = Known>) {
    for known in removed {
        known.controller.update(|controller, _| controller.forget());
    }
}

impl Keys {
    fn remove(&mut self, key: QuotaKey) -> Option<Known> {
        let known = self.controllers.remove(key)?;
        self.accounts.leave(known.account, key);
        Some(known)
    }

    fn others(&self, account: QuotaKey, key: QuotaKey) -> Vec<Member> {
        let others = self.accounts.members(account).filter(|other| *other != key);
        others.filter_map(|other| Some((other, Arc::downgrade(&self.controllers.peek(other)?.controller)))).collect()
    }
}

impl Known {
    fn standing(&self, now: Instant) -> Standing {
        if Arc::strong_count(&self.controller) > 1 {
            Standing::InUse
        } else if self.controller.read(|controller| controller.worth_keeping(now)) {
            Standing::WorthKeeping
        } else {
            Standing::Idle
        }
    }
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quotas").field("keys", &self.len()).finish_non_exhaustive()
    }
}
