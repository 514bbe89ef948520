//! The deadline of a call.

use std::time::Duration;

use tokio::time::Instant;

/// The time until which a call may wait, over all attempts and delays. Insert it into the request's extensions.
///
/// A call whose turn does not come before the deadline is rejected at once (`local_deadline`). A throttled call gets
/// the server's 429 if the next delay would end after the deadline. An attempt in flight is not interrupted; use a
/// timeout layer for that.
///
/// ```
/// use std::time::Duration;
/// use tower_429::Deadline;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Deadline::within(Duration::from_secs(30)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    at: Instant,
}

impl Deadline {
    /// Creates a deadline `time` from now. A time that the clock cannot represent means no deadline.
    pub fn within(time: Duration) -> Self {
        let now = Instant::now();
        Self { at: now.checked_add(time).unwrap_or(now + crate::time::NEVER) }
    }

    /// Sets the deadline to a moment.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use tower_429::Deadline;
    ///
    /// let deadline = Deadline::at(Instant::now() + Duration::from_secs(30));
    /// assert!(deadline.remaining() > Duration::from_secs(29));
    /// ```
    #[expect(clippy::disallowed_types, reason = "the moment comes from a caller that has no tokio clock")]
    pub fn at(at: std::time::Instant) -> Self {
        Self { at: Instant::from_std(at) }
    }

    /// Returns the time that is left, zero if the deadline has passed.
    pub fn remaining(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub(crate) const fn instant(self) -> Instant {
        self.at
    }
}
