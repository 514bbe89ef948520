//! Until when a call may wait.

use std::time::Duration;

use tokio::time::Instant;

/// Until when a call may wait, attempts and sleeps together, set in a request's extensions.
///
/// A call whose turn cannot come in time is answered locally at once (`local_deadline`), and a throttled call whose next
/// sleep would not fit gets the server's 429. An attempt that is on the wire is not interrupted: that is the
/// business of a timeout layer.
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
    /// So much time from now; a time beyond what the clock can hold is no deadline in practice.
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
