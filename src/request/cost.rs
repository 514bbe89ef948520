//! The cost of one call: the tokens that it takes from the limits of its key.

use crate::vocabulary::Unit;

/// The cost of one call: one request and a number of tokens.
///
/// The layer estimates the cost from the request body. To set it yourself, insert a `Cost` into the request's
/// extensions.
///
/// ```
/// use tower_429::Cost;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Cost::tokens(1_200.0));
///
/// // For a provider with separate limits on input and output:
/// request.extensions_mut().insert(Cost::tokens(1_200.0).with_input(200.0).with_output(1_000.0));
/// ```
///
/// The tokens are unknown if the body cannot be copied, is larger than 4 MiB, or is not a JSON object. An unknown cost
/// differs from `Cost::tokens(0.0)`.
#[derive(Clone, Copy, PartialEq)]
pub struct Cost {
    /// `None` if no estimate is possible.
    tokens: Option<Tokens>,
}

/// Token counts as `f32`, to save memory: each waiting call and each attempt holds one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Tokens {
    all: f32,
    input: f32,
    output: f32,
}

impl Cost {
    /// Creates the cost of one request with `tokens` tokens.
    ///
    /// By default all tokens also count as input, and none as output. A negative number or NaN counts as zero. The
    /// maximum is 10^9.
    pub const fn tokens(tokens: f64) -> Self {
        let all = sane(tokens);
        Self { tokens: Some(Tokens { all, input: all, output: 0.0 }) }
    }

    /// Creates the cost of one request whose tokens are unknown.
    pub(crate) const fn unknown() -> Self {
        Self { tokens: None }
    }

    /// Returns true if the tokens are known or estimated.
    pub(crate) const fn is_known(&self) -> bool {
        self.tokens.is_some()
    }

    /// Sets the number of tokens that count as input.
    #[must_use]
    pub const fn with_input(mut self, tokens: f64) -> Self {
        if let Some(known) = &mut self.tokens {
            known.input = sane(tokens);
        }
        self
    }

    /// Returns the tokens of the call, or `None` if no estimate is possible.
    pub const fn total(self) -> Option<f64> {
        if self.is_known() { Some(self.of(Unit::Tokens)) } else { None }
    }

    /// Returns the tokens that count as input, or `None` if no estimate is possible.
    pub const fn input(self) -> Option<f64> {
        if self.is_known() { Some(self.of(Unit::InputTokens)) } else { None }
    }

    /// Returns the tokens that count as output, or `None` if no estimate is possible.
    pub const fn output(self) -> Option<f64> {
        if self.is_known() { Some(self.of(Unit::OutputTokens)) } else { None }
    }

    /// Sets the number of tokens that count as output.
    #[must_use]
    pub const fn with_output(mut self, tokens: f64) -> Self {
        if let Some(known) = &mut self.tokens {
            known.output = sane(tokens);
        }
        self
    }

    /// Returns the amount that the call takes from a bucket of this unit. Unknown tokens count as zero.
    pub(crate) const fn of(self, unit: Unit) -> f64 {
        let Tokens { all, input, output } = match self.tokens {
            Some(tokens) => tokens,
            None => Tokens { all: 0.0, input: 0.0, output: 0.0 },
        };
        match unit {
            Unit::Requests => 1.0,
            Unit::Tokens => all as f64,
            Unit::InputTokens => input as f64,
            Unit::OutputTokens => output as f64,
        }
    }
}

impl std::fmt::Debug for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.is_known() {
            return f.write_str("Cost(unknown)");
        }
        let [tokens, input, output] = [Unit::Tokens, Unit::InputTokens, Unit::OutputTokens].map(|unit| self.of(unit));
        f.debug_struct("Cost").field("tokens", &tokens).field("input", &input).field("output", &output).finish()
    }
}

/// The maximum number of tokens of a call. It is more than any request has, and sums of it do not overflow.
pub(crate) const TOKENS_MAX: f64 = 1e9;

const fn sane(tokens: f64) -> f32 {
    if tokens > 0.0 { tokens.min(TOKENS_MAX) as f32 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_never_negative_or_no_number() {
        assert_eq!(Cost::tokens(-3.0), Cost::tokens(0.0));
        assert_eq!(Cost::tokens(f64::NAN), Cost::tokens(0.0));
        assert!(Cost::tokens(f64::INFINITY).with_output(1e300).of(Unit::OutputTokens).is_finite());
    }

    #[test]
    fn an_unknown_cost_is_one_request_and_not_the_same_as_no_tokens() {
        let unknown = Cost::unknown();
        assert!(!unknown.is_known() && Cost::tokens(0.0).is_known());
        assert_ne!(unknown, Cost::tokens(0.0));
        assert_eq!([Unit::Requests, Unit::Tokens, Unit::InputTokens].map(|unit| unknown.of(unit)), [1.0, 0.0, 0.0]);
        assert_eq!(format!("{unknown:?}"), "Cost(unknown)");
        assert_eq!(
            format!("{:?}", Cost::tokens(5.0).with_output(2.0)),
            "Cost { tokens: 5.0, input: 5.0, output: 2.0 }"
        );
    }
}
