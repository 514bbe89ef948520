//! A call in its key's queue: its price and its earlier 429s.

use super::call_specific::ThrottleHistory;
use super::cost_correction::Correction;
use crate::classify::{Scope, Unit};
use crate::request::{Cost, TOKENS_MAX};

/// The units that a call spends.
pub(super) const UNITS: [Unit; 4] = [Unit::Requests, Unit::Tokens, Unit::InputTokens, Unit::OutputTokens];

/// What a call takes of each unit, by what is known when it is sent.
pub(super) type Price = [f64; UNITS.len()];

/// A call in its key's queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallInfo {
    /// Identifies the call through all its attempts.
    pub(crate) call: u64,
    pub(crate) cost: Cost,
    /// The price of this call in a unit, as a 429 stated it.
    told: Option<(Unit, f32)>,
    pub(crate) throttles: ThrottleHistory,
}

impl CallInfo {
    pub(crate) fn new(call: u64, cost: Cost) -> Self {
        Self { call, cost, told: None, throttles: ThrottleHistory::default() }
    }

    /// Returns the estimate that the correction applies to. `None` if there is none, or if the server has stated the price.
    pub(super) fn estimate(&self, unit: Unit) -> Option<f64> {
        let told = self.told.is_some_and(|(of, _)| of == unit);
        let estimated = is_estimated(unit) && !told && self.cost.is_known();
        Some(self.cost.of(unit)).filter(|cost| estimated && *cost > 0.0)
    }

    /// Sets the price that the server stated.
    pub(super) fn price_told(&mut self, unit: Unit, price: f64) {
        self.told = Some((unit, price.clamp(0.0, TOKENS_MAX) as f32)); // small: each waiter has one
    }

    /// Returns what the call takes, with corrected estimates.
    pub(super) fn price(&self, correction: &Correction) -> Price {
        UNITS.map(|unit| match self.told {
            Some((told, price)) if told == unit => price.into(),
            _ if !is_estimated(unit) => self.cost.of(unit),
            _ if !self.cost.is_known() => correction.mean(),
            _ => self.cost.of(unit) * correction.factor(),
        })
    }
}

/// Returns whether a unit is estimated, so that the correction applies.
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
        let mut call_info = CallInfo::new(1, Cost::tokens(100.0));
        assert_eq!(call_info.price(&correction).map(f64::round), [1.0, 120.0, 120.0, 0.0]);
        call_info.price_told(Unit::Tokens, 400.0);
        assert_eq!(call_info.price(&correction).map(f64::round), [1.0, 400.0, 120.0, 0.0]);
        assert_eq!(call_info.estimate(Unit::Tokens), None);
        assert_eq!(call_info.estimate(Unit::InputTokens), Some(100.0));
    }

    #[test]
    fn a_call_without_an_estimate_costs_what_calls_of_its_key_take_on_average() {
        let mut correction = Correction::default();
        let call_info = CallInfo::new(1, Cost::unknown());
        assert_eq!(call_info.price(&correction), [1.0, 0.0, 0.0, 0.0]);
        correction.call_took(4_000.0, 1.0);
        assert_eq!(call_info.price(&correction), [1.0, 4_000.0, 4_000.0, 0.0]);
        assert_eq!(call_info.estimate(Unit::Tokens), None);
    }
}
