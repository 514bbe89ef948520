//! The events of a key that are reported to the user.

use std::fmt;
use std::time::Duration;

use crate::vocabulary::Dimension;

/// An event of a key; see [`RetryOn429Layer::on_event`](crate::RetryOn429Layer::on_event).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum QuotaEvent {
    /// The server's headers report another limit than before, for example after a change of tier.
    LimitChanged {
        /// The limit that changed.
        dimension: Dimension,
        /// The limit before, in units of the dimension.
        from: f64,
        /// The limit now, in units of the dimension.
        to: f64,
    },
    /// The key is closed. Its calls fail fast, except for a probe now and then.
    ///
    /// When an account's plan or balance is exhausted, the event is reported for each of its keys. A key that is first met while
    /// its account is closed reports it with its first answer.
    Closed {
        /// True if a quota is exhausted. False if the server asks for a longer delay than `max_wait`, or throttles every call.
        quota: bool,
        /// The time until the first probe.
        retry_after: Duration,
    },
    /// The server's headers say that a bucket stays empty for longer than `max_wait`.
    ///
    /// Calls that need the bucket are rejected locally until a call succeeds, except for a probe now and then. The key stays
    /// open for calls that fit sooner.
    BucketEmpty {
        /// The time until the bucket holds enough for the first such call.
        retry_after: Duration,
    },
    /// Permits were lent, because their response bodies were not polled while other calls waited for a permit
    /// ([`lend_unread_after`](crate::RetryOn429Layer::lend_unread_after)).
    ///
    /// The event is reported once until all lent permits have ended, with the next admission or answer of the key.
    PermitsLent {
        /// The number of permits that were lent so far.
        permits: u32,
    },
    /// A probe of the key, or of another key of its account, succeeded. The key is open again.
    Opened,
    /// All remembered keys are in use, so the call of this key is not remembered.
    ///
    /// The call is sent without what is known of its key, and only its own further attempts learn from it. The event is
    /// reported for the first such call, and again after a minute without any.
    TooManyKeys {
        /// The number of keys that are remembered; see [`max_keys`](crate::RetryOn429Layer::max_keys).
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
