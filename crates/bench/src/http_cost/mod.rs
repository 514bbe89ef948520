//! What a call costs over real HTTP: processor time of a hyper client over loopback, with each stack around it.

pub mod client;
pub mod server;

use std::time::Duration;

/// Processor time that this process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// In its own code.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl Usage {
    /// Reads it, from `getrusage`; nothing where there is none.
    #[cfg(unix)]
    pub fn now() -> Option<Self> {
        use nix::sys::resource::{UsageWho, getrusage};
        use nix::sys::time::TimeValLike;

        let used = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        let span = |microseconds: i64| Duration::from_micros(u64::try_from(microseconds).unwrap_or_default());
        Some(Self {
            user: span(used.user_time().num_microseconds()),
            system: span(used.system_time().num_microseconds()),
        })
    }

    /// Reads it, from `getrusage`; nothing where there is none.
    #[cfg(not(unix))]
    pub fn now() -> Option<Self> {
        None
    }

    /// What was used from then to now.
    #[must_use]
    pub fn since(self, then: Self) -> Self {
        Self { user: self.user.saturating_sub(then.user), system: self.system.saturating_sub(then.system) }
    }

    /// Both together.
    #[must_use]
    pub fn total(self) -> Duration {
        self.user + self.system
    }
}
