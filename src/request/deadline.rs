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

    pub(crate) const fn at(self) -> Instant {
        self.at
    }
}
