//! What a call asks its key for: its price, and what it has met before.

use super::call_specific::Refusals;
use super::correction::Correction;
use crate::call::Cost;
use crate::classify::{Scope, Unit};

/// What a call spends of.
pub(super) const UNITS: [Unit; 4] = [Unit::Requests, Unit::Tokens, Unit::InputTokens, Unit::OutputTokens];

/// What a call takes of each unit, as far as is known when it is sent.
pub(super) type Price = [f64; UNITS.len()];

/// A call, as its key's queue knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    /// Tells the calls of a key apart, through all their attempts.
    pub(crate) call: u64,
    pub(crate) cost: Cost,
    /// The unit whose price the server has told in a refusal of this call.
    told: Option<Unit>,
    pub(crate) refusals: Refusals,
}

impl Ask {
    pub(crate) fn new(call: u64, cost: Cost) -> Self {
        Self { call, cost, told: None, refusals: Refusals::default() }
    }

    /// The estimate of a unit that the correction is for; nothing if there is none, or if the server has told the price.
    pub(super) fn estimate(&self, unit: Unit) -> Option<f64> {
        let estimated = is_estimated(unit) && self.told != Some(unit) && self.cost.is_known();
        Some(self.cost.of(unit)).filter(|cost| estimated && *cost > 0.0)
    }

    /// The server has told what this call takes of a unit.
    pub(super) fn price_told(&mut self, unit: Unit, price: f64) {
        self.cost = self.cost.with_unit(unit, price);
        self.told = Some(unit);
    }

    /// What the call takes, as far as estimates have proved right.
    pub(super) fn price(&self, correction: &Correction) -> Price {
        UNITS.map(|unit| match unit {
            Unit::Requests => 1.0,
            unit if self.told == Some(unit) => self.cost.of(unit),
            unit if !self.cost.is_known() => if is_estimated(unit) { correction.mean() } else { 0.0 },
            unit if is_estimated(unit) => self.cost.of(unit) * correction.factor(),
            unit => self.cost.of(unit),
        })
    }
}

/// Whether calls are counted at an estimate that the correction is for.
pub(super) fn is_estimated(unit: Unit) -> bool {
    matches!(unit, Unit::Tokens | Unit::InputTokens)
}

pub(super) fn unit_of(scope: Scope) -> Option<Unit> {
    match scope {
        Scope::Tokens | Scope::DailyTokens => Some(Unit::Tokens),
        Scope::InputTokens => Some(Unit::InputTokens),
        Scope::OutputTokens => Some(Unit::OutputTokens),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_that_the_server_tells_replaces_the_estimate_of_its_unit() {
        let mut correction = Correction::default();
        correction.asked(2.0); // estimates count 1.2 times
        let mut ask = Ask::new(1, Cost::tokens(100.0));
        assert_eq!(ask.price(&correction).map(f64::round), [1.0, 120.0, 120.0, 0.0]);
        ask.price_told(Unit::Tokens, 400.0);
        assert_eq!(ask.price(&correction).map(f64::round), [1.0, 400.0, 120.0, 0.0]);
        assert_eq!(ask.estimate(Unit::Tokens), None);
        assert_eq!(ask.estimate(Unit::InputTokens), Some(100.0));
    }

    #[test]
    fn a_call_without_an_estimate_costs_what_calls_of_its_key_take_on_average() {
        let mut correction = Correction::default();
        let ask = Ask::new(1, Cost::unknown());
        assert_eq!(ask.price(&correction), [1.0, 0.0, 0.0, 0.0]);
        correction.call_took(4_000.0, 1.0);
        assert_eq!(ask.price(&correction), [1.0, 4_000.0, 4_000.0, 0.0]);
        assert_eq!(ask.estimate(Unit::Tokens), None);
    }
}
