//! The admission policy of a plain limit: a fixed number of calls at once.

use tokio::time::Instant;

use crate::time::LONGEST;
use crate::wait_queue::{Admission, AdmissionPolicy, Decision, Lent};

/// A fixed number of calls at once.
pub(crate) struct FixedLimit {
    pub(crate) size: usize,
    pub(crate) in_use: usize,
    pub(crate) lent: Lent,
}

impl FixedLimit {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, in_use: 0, lent: Lent::default() }
    }
}

impl AdmissionPolicy for FixedLimit {
    type Call = ();
    type Ticket = u64;

    fn on_arrival(&mut self, _: Instant) {}

    fn decide(&mut self, now: Instant, (): &(), ahead: usize) -> Decision {
        if self.in_use + ahead < self.size {
            Decision::Admit(Admission::default())
        } else {
            Decision::Blocked(now + LONGEST)
        }
    }

    fn admit(&mut self, _: Instant, (): &(), _: Admission) -> u64 {
        self.in_use += 1;
        1 // permits are alike
    }

    fn release(&mut self, _: Instant, _: u64) {
        self.in_use = self.in_use.saturating_sub(1);
    }

    fn missing_permits(&self, _: Instant, ahead: usize) -> usize {
        (self.in_use.saturating_add(ahead).saturating_add(1)).saturating_sub(self.size)
    }

    fn lend_permit(&mut self) {
        self.in_use = self.in_use.saturating_sub(1);
        self.lent.lend();
    }

    fn release_lent(&mut self, _: Instant, _: u64) {
        self.lent.returned();
    }
}
