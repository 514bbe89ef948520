//! What a provider has seen of its clients.

use std::collections::BTreeMap;

use crate::facts::Facts;
use crate::verdict::Reason;

/// Of no more bodies than this are sizes and hashes kept; the first ones are.
pub const MAX_BODIES_SEEN: usize = 1_000_000;

/// What a provider has seen so far: a copy, which does not change.
///
/// Calls count from their arrival at the server, so one that is cancelled on its way was never seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// Calls that were served.
    pub accepted: usize,
    /// Calls throttled by the limit on requests.
    pub throttled_requests: usize,
    /// Calls throttled by the limit on tokens.
    pub throttled_tokens: usize,
    /// Calls throttled by the limit that no header shows.
    pub throttled_hidden: usize,
    /// Calls throttled because too many were in flight.
    pub throttled_concurrency: usize,
    /// Calls throttled with `insufficient_quota`.
    pub throttled_quota: usize,
    /// Requests whose body could not be read or was too long (status 400 and 413). Only counted in
    /// the total, not by key.
    pub unreadable: usize,
    /// Calls being served now.
    pub in_flight: usize,
    /// The most calls that were ever served at once.
    pub most_in_flight: usize,
    /// The bytes of each request's body, in order of arrival, throttled ones included; the first
    /// [`MAX_BODIES_SEEN`].
    pub body_bytes: Vec<usize>,
    /// A hash of each request's body, in the same order. Equal bodies have equal hashes, so that a
    /// test can tell whether a retry sent the same bytes.
    pub body_hashes: Vec<u64>,
    /// The same for each pair of credential and model; `by_key` of these is empty.
    pub by_key: BTreeMap<(String, String), Self>,
}

impl Seen {
    /// All 429s together.
    #[must_use]
    pub fn throttled(&self) -> usize {
        self.throttled_requests
            + self.throttled_tokens
            + self.throttled_hidden
            + self.throttled_concurrency
            + self.throttled_quota
    }

    /// All calls that arrived with a readable body.
    #[must_use]
    pub fn arrived(&self) -> usize {
        self.accepted + self.throttled()
    }

    pub(crate) fn note_arrival(&mut self, facts: &Facts) {
        if self.body_bytes.len() < MAX_BODIES_SEEN {
            self.body_bytes.push(facts.body_bytes);
            self.body_hashes.push(facts.body_hash);
        }
    }

    pub(crate) fn note_accepted(&mut self, in_flight: usize) {
        self.accepted += 1;
        self.most_in_flight = self.most_in_flight.max(in_flight);
    }

    pub(crate) fn note_throttled(&mut self, reason: &Reason) {
        let count = match reason {
            Reason::Quota => &mut self.throttled_quota,
            Reason::Concurrency { .. } => &mut self.throttled_concurrency,
            Reason::Requests(_) => &mut self.throttled_requests,
            Reason::Tokens(_) => &mut self.throttled_tokens,
            Reason::Hidden(_) => &mut self.throttled_hidden,
        };
        *count += 1;
    }
}
