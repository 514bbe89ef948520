//! [`Seen`]: counts of calls and responses.

use std::collections::BTreeMap;

use crate::facts::Facts;
use crate::verdict::Reason;

/// Maximum number of bodies whose sizes and hashes are kept. The first bodies are kept.
pub const MAX_BODIES_SEEN: usize = 1_000_000;

/// Counts of calls and responses at one time.
///
/// A call is counted when it arrives at the server. A call that is cancelled before that is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// Calls that were accepted.
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
    /// Requests whose body could not be read or was too long (status 400 and 413). They are counted in
    /// the total, not by key.
    pub unreadable: usize,
    /// Calls in flight now.
    pub in_flight: usize,
    /// The maximum number of calls in flight.
    pub most_in_flight: usize,
    /// The size of each request body in bytes, in order of arrival. Throttled calls are included. At most
    /// [`MAX_BODIES_SEEN`] are kept.
    pub body_bytes: Vec<usize>,
    /// A hash of each request body, in the same order. Equal bodies have equal hashes, so a test can check
    /// that a retry sent the same bytes.
    pub body_hashes: Vec<u64>,
    /// The same counts for each pair of credential and model. Their `by_key` is empty.
    pub by_key: BTreeMap<(String, String), Self>,
}

impl Seen {
    /// Returns the number of all 429s.
    #[must_use]
    pub fn throttled(&self) -> usize {
        self.throttled_requests
            + self.throttled_tokens
            + self.throttled_hidden
            + self.throttled_concurrency
            + self.throttled_quota
    }

    /// Returns the number of all calls that arrived with a readable body.
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
