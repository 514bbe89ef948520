//! A budget for retries of server and transport errors, so that a server in trouble does not get twice the load.
//!
//! Throttled calls need no budget, because the key's cooldown and pace hold them back. The unit is a thousandth of a retry.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// The retries that the budget starts with, and the maximum it holds: 100.
pub const BUDGET_MAX: u64 = 100;
/// The number of successful calls that add one retry to the budget: 5.
pub const BUDGET_CALLS: u64 = 5;
/// The retries that each second adds, so that a quiet client can retry, too: 1.
pub const BUDGET_PER_SECOND: u64 = 1;

const RETRY: u64 = 1_000;

#[derive(Debug)]
pub(crate) struct Budget {
    state: Mutex<(u64, Option<Instant>)>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { state: Mutex::new((BUDGET_MAX * RETRY, None)) }
    }
}

impl Budget {
    pub(crate) fn deposit(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = (state.0 + RETRY / BUDGET_CALLS).min(BUDGET_MAX * RETRY);
    }

    /// Takes one retry, if the budget holds one.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (saved, at) = *state;
        let passed = at.map_or(0, |at| now.saturating_duration_since(at).as_millis());
        let passed = u64::try_from(passed).unwrap_or(u64::MAX).saturating_mul(BUDGET_PER_SECOND * RETRY / 1_000);
        let saved = saved.saturating_add(passed).min(BUDGET_MAX * RETRY);
        let left = saved.checked_sub(RETRY);
        *state = (left.unwrap_or(saved), Some(now));
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_budget_grants_what_was_saved_and_a_year_of_silence_costs_nothing() {
        let (budget, now) = (Budget::default(), Instant::now());
        assert_eq!((0..1_000).filter(|_| budget.withdraw(now)).count(), 100);
        (0..10).for_each(|_| budget.deposit());
        assert_eq!((0..1_000).filter(|_| budget.withdraw(now)).count(), 2);
        let later = now + Duration::from_secs(365 * 86_400);
        assert_eq!((0..1_000).filter(|_| budget.withdraw(later)).count(), 100);
    }

    #[test]
    fn the_budget_is_exact_under_concurrency() {
        let (budget, now) = (Budget::default(), Instant::now());
        let granted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..100).filter(|_| budget.withdraw(now)).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 100);
    }
}
