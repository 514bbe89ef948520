//! The rule of a plain limit: so many at once, whatever the time.

use tokio::time::Instant;

use crate::time::LONGEST;
use crate::wait_queue::{Go, Lent, Next, Rule};

/// How many are in, and how many may be.
pub(crate) struct Places {
    pub(crate) size: usize,
    pub(crate) in_use: usize,
    pub(crate) lent: Lent,
}

impl Places {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, in_use: 0, lent: Lent::default() }
    }
}

impl Rule for Places {
    type Ask = ();
    type Pass = u64;
    const CLOCK: bool = false;

    fn submit(&mut self, _: Instant) {}

    fn next(&mut self, now: Instant, (): &(), ahead: usize) -> Next {
        if self.in_use + ahead < self.size { Next::Go(Go::default()) } else { Next::Park(now + LONGEST) }
    }

    fn take(&mut self, _: Instant, (): &(), _: Go) -> u64 {
        self.in_use += 1;
        1 // slots are alike
    }

    fn ended(&mut self, _: Option<Instant>, _: u64) {
        self.in_use = self.in_use.saturating_sub(1);
    }

    fn missing(&self, _: Instant, ahead: usize) -> usize {
        (self.in_use.saturating_add(ahead).saturating_add(1)).saturating_sub(self.size)
    }

    fn lend(&mut self) {
        self.in_use = self.in_use.saturating_sub(1);
        self.lent.lend();
    }

    fn returned(&mut self, _: Option<Instant>, _: u64) {
        self.lent.returned();
    }
}
