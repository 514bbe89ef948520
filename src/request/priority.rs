//! The order of calls that wait: their class, and their number within it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// The next number. All queues share one counter, so that calls of different keys keep their order where they meet.
pub(crate) fn next_number() -> u64 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Who goes first when calls wait, set in a request's extensions.
///
/// The classes share by weight, so that none starves: while all three wait, of 21 calls 16 are interactive, 4 normal
/// and 1 batch ([`weight`](Self::weight)). Within a class the order is first come, first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Priority {
    /// Somebody is waiting for the answer.
    Interactive,
    /// The default.
    #[default]
    Normal,
    /// Work that may take as long as it takes.
    Batch,
}

impl Priority {
    pub(crate) const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Batch];

    /// The share of this class while others wait, too.
    pub const fn weight(self) -> u64 {
        match self {
            Self::Interactive => 16,
            Self::Normal => 4,
            Self::Batch => 1,
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// What one admission costs the class: the inverse of its weight.
    pub(crate) const fn stride(self) -> u64 {
        Self::Interactive.weight() / self.weight()
    }
}

impl Priority {
    /// A name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Normal => "normal",
            Self::Batch => "batch",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
