//! What a key's controller has to tell: events for whoever watches, so that a higher quota is asked for in time.

use std::fmt;
use std::time::Duration;

use crate::vocabulary::Dimension;

/// Something about a key that is worth knowing; see [`RetryOn429Layer::on_event`](crate::RetryOn429Layer::on_event).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum QuotaEvent {
    /// The server's headers tell another limit than before: a tier changed, or a provider cut it silently.
    LimitChanged {
        /// Which limit.
        dimension: Dimension,
        /// What it was, in units of the dimension.
        from: f64,
        /// What it is.
        to: f64,
    },
    /// The key is closed: its calls are answered locally, but for a probe now and then. Told of each key of an account whose
    /// plan or balance is used up; of a key that is first met while its account is closed, with its first answer.
    Closed {
        /// Its quota is used up; if not, the server asks for a longer wait than anybody accepts, or throttles everything.
        quota: bool,
        /// When the first probe may go.
        retry_after: Duration,
    },
    /// The server's headers say that a bucket stays empty for longer than a call may wait: such calls are answered locally,
    /// but for a probe now and then, until a call succeeds. The key stays open for calls that fit sooner.
    BucketEmpty {
        /// How long the first such call would have waited.
        retry_after: Duration,
    },
    /// Calls waited for permits that response bodies held which nobody had polled for a time
    /// ([`lend_unread_after`](crate::RetryOn429Layer::lend_unread_after)). Their permits were lent to the calls that waited.
    /// Reported once, when an admitted call or an answer next concerns the key, until all lent permits have ended.
    PermitsLent {
        /// How many were lent until then.
        permits: u32,
    },
    /// A probe of it, or of another key of its account, succeeded: the key is open again.
    Opened,
    /// All remembered keys are in use, so the call of this key is not remembered: it is sent without what is known of its
    /// key, and teaches only its own further attempts. Told of the first such call, and again after a minute without any.
    TooManyKeys {
        /// How many keys are remembered; see [`max_keys`](crate::RetryOn429Layer::max_keys).
        max_keys: usize,
    },
}

impl QuotaEvent {
    /// A name for logs and metrics, distinct for each variant.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::LimitChanged { .. } => "limit_changed",
            Self::Closed { .. } => "closed",
            Self::BucketEmpty { .. } => "bucket_empty",
            Self::PermitsLent { .. } => "permits_lent",
            Self::Opened => "opened",
            Self::TooManyKeys { .. } => "too_many_keys",
        }
    }
}

impl fmt::Display for QuotaEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
