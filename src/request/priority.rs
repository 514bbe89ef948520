//! The priority class of a call, and its number within the class.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Returns the next number. All queues share one counter, so calls of different keys have one common order.
pub(crate) fn next_number() -> u64 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// The priority of a waiting call. Insert it into the request's extensions. The default is `Normal`.
///
/// The classes share the permits by weight, so no class starves. While all three classes wait, 16 of 21 admitted calls
/// are interactive, 4 are normal and 1 is batch (see [`weight`](Self::weight)). Within a class, the order is first
/// come, first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Priority {
    /// A user waits for the response.
    Interactive,
    /// Other calls. This is the default.
    #[default]
    Normal,
    /// Background work without a time limit.
    Batch,
}

impl Priority {
    pub(crate) const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Batch];

    /// Returns the weight of the class: its share of the admissions while other classes wait.
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

    /// Returns the cost of one admission of the class: the inverse of its weight.
    pub(crate) const fn stride(self) -> u64 {
        Self::Interactive.weight() / self.weight()
    }
}

impl Priority {
    /// The name for logs and metrics, distinct for each variant.
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
