//! The state of a provider behind one lock: the accounts of all keys, and shared counts.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use tokio::time::Instant;

use crate::account::Account;
use crate::builder::Config;
use crate::facts::{Facts, Key};
use crate::knobs::Answer;
use crate::seen::Seen;
use crate::time::{later, seconds};
use crate::timing::between;
use crate::verdict::{Outcome, Permit, Rate, Verdict};

/// State shared by a provider, its clones, futures and bodies.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The initial settings. The state has a copy that changes.
    pub(crate) config: Config,
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        Self { state: Mutex::new(State::new(config.clone())), config }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) quota_ended: bool,
    accounts: BTreeMap<Key, Account>,
    /// The key of the first request, which the level methods read.
    first: Option<Key>,
    arrivals: u64,
    total: Seen,
    latencies: Rng,
    services: Rng,
}

impl State {
    fn new(config: Config) -> Self {
        let seed = config.seed;
        Self {
            config,
            quota_ended: false,
            accounts: BTreeMap::new(),
            first: None,
            arrivals: 0,
            total: Seen::default(),
            latencies: Rng::with_seed(seed),
            services: Rng::with_seed(seed ^ 0x5345_5256),
        }
    }

    /// Registers a call that the client sends `now`, and returns the time of its arrival.
    pub(crate) fn depart(&mut self, facts: &Facts, now: Instant) -> Instant {
        self.first.get_or_insert_with(|| facts.key.clone());
        open(&mut self.accounts, &self.config, &facts.key, now);
        let lag = between(&self.config.latency.request, &mut self.latencies);
        later(now, lag)
    }

    /// Decides about a call that arrives `now`.
    pub(crate) fn arrive(&mut self, facts: &Facts, now: Instant) -> Verdict {
        self.advance(now);
        self.arrivals += 1;
        self.total.note_arrival(facts);
        let (config, number) = (&self.config, self.arrivals);
        let account = open(&mut self.accounts, config, &facts.key, now);
        let (head_at, outcome) = match account.throttle(config, self.quota_ended, facts) {
            Some((reason, wait)) => {
                self.total.note_throttled(&reason);
                let lag = between(&config.latency.throttle, &mut self.latencies);
                let wait = seconds(wait);
                (later(now, lag), Outcome::Throttled { reason, wait })
            }
            None => {
                let service = facts.service.unwrap_or_else(|| config.service.draw(&mut self.services));
                let ends = later(now, service);
                account.accept(config, facts, (ends, number));
                schedule(config, facts, now, ends, &mut self.latencies)
            }
        };
        let requests = account.requests.as_ref().map(Rate::of);
        let tokens = account.tokens.as_ref().map(Rate::of);
        if let Outcome::Accepted { .. } = outcome {
            let in_flight = self.accounts.values().map(Account::in_flight).sum();
            self.total.note_accepted(in_flight);
        }
        Verdict { number, requests, tokens, head_at, outcome }
    }

    /// Ends a call that its client has dropped. Does nothing if its service has ended.
    pub(crate) fn release(&mut self, key: &Key, permit: Permit, now: Instant) {
        if let Some(account) = self.accounts.get_mut(key) {
            account.release(permit, now);
        }
    }

    pub(crate) fn in_flight(&mut self, now: Instant) -> usize {
        self.advance(now);
        self.accounts.values().map(Account::in_flight).sum()
    }

    pub(crate) fn note_unreadable(&mut self) {
        self.total.unreadable += 1;
    }

    pub(crate) fn seen(&mut self, now: Instant) -> Seen {
        self.advance(now);
        let mut seen = self.total.clone();
        for (key, account) in &self.accounts {
            let mut own = account.seen.clone();
            own.in_flight = account.in_flight();
            seen.in_flight += own.in_flight;
            if own.arrived() > 0 {
                seen.by_key.insert((key.credential.clone(), key.model.clone()), own);
            }
        }
        seen
    }

    /// Reads the current account of the first key, or a new account before the first call.
    pub(crate) fn oracle<T>(&mut self, now: Instant, read: impl FnOnce(&Account) -> T) -> T {
        self.advance(now);
        match self.first.as_ref().and_then(|key| self.accounts.get(key)) {
            Some(account) => read(account),
            None => read(&Account::new(&self.config, 0, now)),
        }
    }

    pub(crate) fn cut(&mut self, factor: f64, now: Instant) {
        self.advance(now);
        let config = &mut self.config;
        for limit in [&mut config.requests, &mut config.tokens, &mut config.hidden] {
            *limit = limit.map(|limit| limit.scaled(factor));
        }
        self.accounts.values_mut().for_each(|account| account.cut(factor));
    }

    pub(crate) fn restore_quota(&mut self) {
        self.quota_ended = false;
        self.accounts.values_mut().for_each(|account| account.accepted_on_quota = 0);
    }

    fn advance(&mut self, now: Instant) {
        self.accounts.values_mut().for_each(|account| account.advance(now));
    }
}

/// Returns the account of a key. The clock of an account starts when it is opened.
fn open<'a>(accounts: &'a mut BTreeMap<Key, Account>, config: &Config, key: &Key, now: Instant) -> &'a mut Account {
    let seed = config.seed.wrapping_add(1 + accounts.len() as u64);
    accounts.entry(key.clone()).or_insert_with(|| Account::new(config, seed, now))
}

/// Returns when the client gets the response head of an accepted call, and its outcome.
fn schedule(config: &Config, facts: &Facts, now: Instant, ends: Instant, latencies: &mut Rng) -> (Instant, Outcome) {
    let streamed = match config.answer {
        Answer::AsAsked => facts.stream,
        Answer::Json => false,
        Answer::Sse => true,
    };
    let mut arrival = |sent| later(sent, between(&config.latency.answer, latencies));
    let first = later(now, config.first_after);
    let head = arrival(if streamed { first } else { ends });
    let streamed_until = streamed.then(|| arrival(ends.max(first)).max(head));
    let outcome = Outcome::Accepted { ends, streamed_until };
    (head, outcome)
}
