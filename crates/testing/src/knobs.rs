//! The choices a provider offers where a number is not enough.

/// What a throttled call costs, in request units (of the hidden limit too).
///
/// Tokens are never charged for a 429.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Charge {
    /// One unit, if one is left.
    #[default]
    Burn,
    /// One unit even from an empty bucket, down to a debt of this share of its capacity; 1.0 means
    /// that a client which keeps asking waits for a whole period more.
    Debt(f64),
    /// Nothing.
    Nothing,
}

/// On which answers the `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` headers stand.
///
/// A dimension without a limit has no headers, and neither has `insufficient_quota`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateHeaders {
    /// On successes and 429s.
    #[default]
    All,
    /// On successes.
    SuccessOnly,
    /// Nowhere.
    None,
}

/// Where a 429 says when to come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hints {
    /// In `retry-after` and `retry-after-ms`.
    Headers,
    /// In the message: `Please try again in 1.2s.`
    Message,
    /// In both.
    #[default]
    Both,
    /// Nowhere.
    Neither,
}

impl Hints {
    pub(crate) fn in_headers(self) -> bool {
        matches!(self, Self::Headers | Self::Both)
    }

    pub(crate) fn in_message(self) -> bool {
        matches!(self, Self::Message | Self::Both)
    }
}

/// How exact a hint is. Hints are rounded up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HintUnit {
    /// Milliseconds, at least one: `retry-after-ms`, and `retry-after` in whole seconds beside it.
    #[default]
    Milliseconds,
    /// Seconds, at least one: `retry-after` alone.
    Seconds,
}

/// What a 429 says.
///
/// The bare text is, byte for byte, `{"error":{"message":"Rate limit reached for fine-tuned
/// model","type":"requests","code":"rate_limit_exceeded"}}`. It names no limit and no dimension, so
/// that a client cannot tell a rate from a concurrency limit. `insufficient_quota` keeps its text
/// under every wording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wording {
    /// OpenAI's: the limit, what is used, what was requested; concurrency is called by its name.
    #[default]
    OpenAi,
    /// The bare text and no hint, for every 429.
    Bare,
    /// The bare text for every 429; those by a rate still carry the hint header.
    BareRate,
    /// The bare text and no hint for 429s by concurrency; OpenAI's text for the others.
    BareConcurrency,
}

/// The form of a successful answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Server-sent events if the request's body has `"stream": true`, JSON otherwise.
    #[default]
    AsAsked,
    /// One `chat.completion`, whatever was asked for.
    Json,
    /// Server-sent events, whatever was asked for.
    Sse,
}

/// When an accepted call pays for its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Payment {
    /// The whole price, on arrival.
    #[default]
    Ahead,
    /// The whole price on arrival; what was not used comes back at the end.
    Refund,
    /// The prompt on arrival, the output at the end.
    Post,
}
