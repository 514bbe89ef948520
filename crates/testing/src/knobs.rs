//! Settings of a provider that are a choice between variants.

/// The cost of a throttled call, in requests. The hidden limit is charged, too.
///
/// A throttled call costs no tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Charge {
    /// One request, if one remains.
    #[default]
    Burn,
    /// One request even from an empty bucket, down to a debt of this share of its capacity. With 1.0, a
    /// client that keeps sending waits up to one more period.
    Debt(f64),
    /// Nothing.
    Nothing,
}

/// Which responses have `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` headers.
///
/// A dimension without a limit has no headers. An `insufficient_quota` response has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateHeaders {
    /// Successes and 429s.
    #[default]
    All,
    /// Successes.
    SuccessOnly,
    /// No response.
    None,
}

/// Where a 429 states its delay.
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

/// The unit of the delay in a 429. Delays are rounded up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HintUnit {
    /// Milliseconds, at least one. `retry-after-ms` has the milliseconds, `retry-after` whole seconds.
    #[default]
    Milliseconds,
    /// Seconds, at least one. Only `retry-after` is sent.
    Seconds,
}

/// The message of a 429.
///
/// The bare text is exactly `{"error":{"message":"Rate limit reached for fine-tuned
/// model","type":"requests","code":"rate_limit_exceeded"}}`. It names no limit, so a client cannot
/// tell a rate limit from a concurrency limit. `insufficient_quota` has the same text in every variant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wording {
    /// OpenAI's text: the limit, the amount used and the amount requested. A concurrency limit is named.
    #[default]
    OpenAi,
    /// The bare text without a delay, for every 429.
    Bare,
    /// The bare text for every 429. 429s by a rate limit have the delay in a header.
    BareRate,
    /// The bare text without a delay for 429s by the concurrency limit. OpenAI's text for the others.
    BareConcurrency,
}

/// The form of a successful response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Server-sent events if the request's body has `"stream": true`, JSON otherwise.
    #[default]
    AsAsked,
    /// Always one `chat.completion`.
    Json,
    /// Always server-sent events.
    Sse,
}

/// When an accepted call pays its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Payment {
    /// The whole price, on arrival.
    #[default]
    Ahead,
    /// The whole price on arrival. Unused tokens are returned at the end.
    Refund,
    /// The prompt on arrival, the output at the end.
    Post,
}
