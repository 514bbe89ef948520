//! The state of a key, as users see it.

use std::fmt;
use std::time::Duration;

/// Whether calls of a key may be sent now, as far as cooldowns and closures are concerned.
///
/// Pacing and the concurrency window may still hold a call of an open key back.
///
/// ```
/// use tower_429::quota::KeyState;
///
/// fn describe(state: KeyState) -> String {
///     match state {
///         KeyState::Open => "open".to_owned(),
///         KeyState::CoolingDown { ends_in } => format!("cooling down for {ends_in:?}"),
///         KeyState::Closed { reason, next_probe_in } => format!("closed ({reason}), next probe in {next_probe_in:?}"),
///         _ => state.to_string(),
///     }
/// }
/// # assert_eq!(describe(KeyState::Open), "open");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// Calls are sent.
    Open,
    /// No call is sent before the cooldown ends.
    CoolingDown {
        /// The time until the cooldown ends.
        ends_in: Duration,
    },
    /// Calls fail fast, except for a probe now and then.
    Closed {
        /// Why the key is closed.
        reason: ClosedReason,
        /// The time until the next call may be sent as a probe. Zero if a probe is due or in flight.
        next_probe_in: Duration,
    },
}

/// Why a key is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClosedReason {
    /// The server asks for a longer delay than [`max_wait`](crate::RetryOn429Layer::max_wait).
    DelayTooLong,
    /// The server throttles every call. The time between probes does not grow.
    Failing,
    /// A quota of this key is exhausted, such as a daily quota or that of one model.
    Quota,
    /// The account's plan, budget or balance is exhausted.
    Account,
}

impl KeyState {
    /// The time until the cooldown ends, if the key is cooling down.
    pub const fn cooldown(self) -> Option<Duration> {
        match self {
            Self::CoolingDown { ends_in } => Some(ends_in),
            _ => None,
        }
    }

    /// A name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::CoolingDown { .. } => "cooling_down",
            Self::Closed { .. } => "closed",
        }
    }
}

impl ClosedReason {
    pub(crate) const fn is_quota(self) -> bool {
        matches!(self, Self::Quota | Self::Account)
    }

    /// A name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DelayTooLong => "delay_too_long",
            Self::Failing => "failing",
            Self::Quota => "quota",
            Self::Account => "account",
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ClosedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
