//! The gates by key: found or made on first use, forgotten when they have had nothing to do for longest.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::{Gate, GateConfig};
use crate::call::QuotaKey;
use crate::dialect::Dialect;
use crate::room::Room;

/// At most so many keys are remembered, beyond those that calls are using: 1,024. A forgotten key behaves as new.
pub const MAX_KEYS: usize = 1024;

/// The state of a [`RetryOn429Layer`](crate::RetryOn429Layer): cheap to clone, shared by all services that the layer
/// makes, and by every layer that is given it.
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
    /// Draws all other generators, so that a seeded layer is reproducible.
    seed: Mutex<Option<Rng>>,
}

#[derive(Default)]
struct Keys {
    gates: HashMap<u64, Entry, BuildHasherDefault<AsIs>>,
    /// Counts the uses, so that the one that lies furthest back can be told.
    uses: u64,
}

struct Entry {
    gate: Arc<Room<Gate>>,
    used: u64,
    /// The keys that share a plan and a balance with this one have the same.
    account: u64,
}

/// What a key is made of when it is first met.
pub(crate) struct Origin {
    pub(crate) dialect: &'static Dialect,
    /// The key without its pool; a user's own key is related to none.
    pub(crate) account: QuotaKey,
}

/// What is believed of one key at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySnapshot {
    /// Calls that are out, each to the end of its body.
    pub in_flight: u32,
    /// How many may be out at once.
    pub window: u32,
    /// Calls that wait for this key.
    pub queued: usize,
    /// How long the key cools down yet, if it does.
    pub cooldown: Option<Duration>,
}

/// A key is a hash already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Quotas {
    /// What is believed of a key now; nothing if no call has used it.
    pub fn snapshot(&self, key: QuotaKey) -> Option<KeySnapshot> {
        let gate = Arc::clone(&self.keys().gates.get(&key.hash())?.gate);
        let now = Instant::now();
        let queued = gate.queued();
        Some(gate.look(|gate| KeySnapshot {
            in_flight: gate.in_flight(),
            window: gate.window(),
            queued,
            cooldown: gate.until().filter(|until| *until > now).map(|until| until - now),
        }))
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.keys().gates.len()
    }

    /// Whether no call has been made yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn seed(&self, seed: u64) {
        *self.shared.seed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Rng::with_seed(seed));
    }

    #[inline]
    pub(crate) fn gate(
        &self,
        key: QuotaKey,
        config: &Arc<GateConfig>,
        origin: impl FnOnce() -> Origin,
    ) -> Arc<Room<Gate>> {
        let mut keys = self.keys();
        keys.uses += 1;
        let used = keys.uses;
        if let Some(entry) = keys.gates.get_mut(&key.hash()) {
            entry.used = used;
            return Arc::clone(&entry.gate);
        }
        let forgotten = if keys.gates.len() < MAX_KEYS { None } else { forget_one(&mut keys.gates) };
        let Origin { dialect, account } = origin();
        let gate = Room::new(Gate::new(Arc::clone(config), dialect, self.rng(), Instant::now()));
        keys.gates.insert(key.hash(), Entry { gate: Arc::clone(&gate), used, account: account.hash() });
        drop(keys);
        drop(forgotten); // outside the lock: it may hold a timer
        let closed = |(_, sibling): (_, Arc<Room<Gate>>)| {
            sibling.look(|gate| Some((gate.account_closed(Instant::now())?, gate.closed_by())))
        };
        if let Some((closed, reply)) = self.siblings(key).into_iter().filter_map(closed).min_by_key(|(at, _)| *at) {
            gate.tell(|gate, now| {
                gate.inherit(now, closed);
                reply.iter().for_each(|reply| gate.remember(reply));
            });
        }
        gate
    }

    /// The other keys of a key's account.
    pub(crate) fn siblings(&self, key: QuotaKey) -> Vec<(QuotaKey, Arc<Room<Gate>>)> {
        let keys = self.keys();
        let Some(account) = keys.gates.get(&key.hash()).map(|entry| entry.account) else { return Vec::new() };
        let others = keys.gates.iter().filter(|(other, entry)| entry.account == account && **other != key.hash());
        others.map(|(other, entry)| (QuotaKey::from_hash(*other), Arc::clone(&entry.gate))).collect()
    }

    /// A generator for draws of its own: from the seed, if there is one.
    pub(crate) fn rng(&self) -> Rng {
        let mut seed = self.shared.seed.lock().unwrap_or_else(PoisonError::into_inner);
        seed.as_mut().map_or_else(Rng::new, Rng::fork)
    }

    #[inline]
    fn keys(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the key that has been idle for longest, one that cools down only if all others do, too, and none that a call
/// is using.
fn forget_one(keys: &mut HashMap<u64, Entry, BuildHasherDefault<AsIs>>) -> Option<Entry> {
    let now = Instant::now();
    let idle = keys.iter().filter(|(_, entry)| Arc::strong_count(&entry.gate) == 1);
    let oldest = idle.min_by_key(|(_, entry)| (entry.gate.look(|gate| gate.holds(now)), entry.used))?;
    let key = *oldest.0;
    keys.remove(&key)
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quotas").field("keys", &self.len()).finish_non_exhaustive()
    }
}
