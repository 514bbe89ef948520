//! What a user may put between the calls and the server: ours, the peers, and what people write by hand.

mod by_hand;
mod crates;
mod ours;
mod with_tower;

pub use ours::{layer, ours, over_a_limit};

use crate::run::Client;
use crate::wire::Wire;

/// A way to handle 429s.
#[derive(Clone, Copy)]
pub struct Scheme {
    /// What the table calls it.
    pub name: &'static str,
    /// A client of this kind; each process has one of its own.
    pub make: fn(Wire, Setting) -> Client,
}

/// What differs between two runs of a scheme.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Draws its jitter.
    pub seed: u64,
    /// How often a call may be sent again, unless the scheme's name says otherwise.
    pub retries: u32,
}

impl std::fmt::Debug for Scheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheme").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Everybody else, in the order of the table.
pub const PEERS: &[Scheme] = &[
    Scheme { name: "shared cooldown only", make: ours::cooldown_only },
    Scheme { name: "no handling", make: by_hand::nothing },
    Scheme { name: "Python SDK (2)", make: |wire, _| by_hand::python_sdk(wire, 2) },
    Scheme { name: "Python SDK (10)", make: |wire, _| by_hand::python_sdk(wire, 10) },
    Scheme { name: "async-openai", make: crates::async_openai },
    Scheme { name: "tower + hints", make: with_tower::hints },
    Scheme { name: "tower + hints, limit 64", make: with_tower::hints_and_limit },
    Scheme { name: "reqwest-retry", make: crates::reqwest_retry },
    Scheme { name: "tower-resilience", make: crates::tower_resilience },
    Scheme { name: "AIMD", make: by_hand::aimd },
];
