//! Enums that several modules share, so that these modules do not import each other.

use std::fmt;

/// The kind of a response, which decides whether a retry can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Too many requests or tokens in a time window. A retry can succeed after a delay.
    RateLimited,
    /// Too many concurrent requests. A retry can succeed when fewer are in flight.
    Concurrency,
    /// The server has no capacity, independent of the caller's quota. A retry can succeed after a delay.
    Overloaded,
    /// A budget, a plan or a balance is exhausted. No delay of a useful length helps.
    QuotaExhausted,
    /// The request alone exceeds the limit. It never succeeds unchanged.
    TooLarge,
    /// The server failed. The request may have been processed.
    ServerError,
    /// Any other response, including a success. The layer does not handle it.
    Pass,
}

/// The limit that a [`Verdict`](crate::classify::Verdict) refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Requests in a window shorter than a day.
    Requests,
    /// Tokens in a window shorter than a day.
    Tokens,
    /// Input tokens in a window shorter than a day.
    InputTokens,
    /// Output tokens in a window shorter than a day.
    OutputTokens,
    /// Images in a window shorter than a day.
    Images,
    /// Concurrent requests.
    Concurrent,
    /// Requests per day.
    DailyRequests,
    /// Tokens per day.
    DailyTokens,
    /// Tokens enqueued in batches.
    EnqueuedTokens,
    /// Requests enqueued in batches.
    EnqueuedRequests,
}

/// The source of the delay in a [`Verdict`](crate::classify::Verdict).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HintSource {
    /// A header or the body states the delay.
    Stated,
    /// The `reset` of an exhausted bucket. It is the time until the bucket is *full*, so it is an upper bound.
    Reset,
}

/// Whether a throttling response names the limit that was exceeded. Any other response counts as named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Evidence {
    /// The message, the figures, the delay or the headers tell which limit was exceeded.
    Named,
    /// The response says only that some limit was exceeded, for example `Rate limit reached for fine-tuned model`.
    Bare,
}

impl Kind {
    /// The name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limit",
            Self::Concurrency => "concurrency",
            Self::Overloaded => "overloaded",
            Self::QuotaExhausted => "quota_exhausted",
            Self::TooLarge => "too_large",
            Self::ServerError => "server_error",
            Self::Pass => "pass",
        }
    }
}

impl Scope {
    /// The same limit per day, where there is such a scope. Other scopes are returned unchanged.
    pub(crate) const fn daily(self) -> Self {
        match self {
            Self::Requests => Self::DailyRequests,
            Self::Tokens | Self::InputTokens | Self::OutputTokens => Self::DailyTokens,
            other => other,
        }
    }

    /// The name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Images => "images",
            Self::Concurrent => "concurrent",
            Self::DailyRequests => "daily_requests",
            Self::DailyTokens => "daily_tokens",
            Self::EnqueuedTokens => "enqueued_tokens",
            Self::EnqueuedRequests => "enqueued_requests",
        }
    }
}

/// What a bucket counts, and its time window where the header's name gives one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dimension {
    /// Requests. The server chooses the window: a minute for most, a day for Groq and some OpenAI models.
    Requests,
    /// Input and output tokens.
    Tokens,
    /// Input tokens.
    InputTokens,
    /// Output tokens.
    OutputTokens,
    /// Requests of one project.
    ProjectRequests,
    /// Tokens of one project.
    ProjectTokens,
    /// Tokens of a usage-based (pay-as-you-go) tier.
    UsageBasedTokens,
    /// Requests per hour.
    RequestsPerHour,
    /// Tokens per hour.
    TokensPerHour,
    /// Requests per day.
    RequestsPerDay,
    /// Tokens per day.
    TokensPerDay,
    /// The header does not name a unit, as `x-ratelimit-limit` and the IETF's `ratelimit`. It counts as requests.
    Unnamed,
}

/// The unit in which a bucket counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// One request.
    Requests,
    /// One token, input or output.
    Tokens,
    /// One input token.
    InputTokens,
    /// One output token.
    OutputTokens,
}

impl Dimension {
    /// Returns the unit in which this bucket counts.
    pub const fn unit(self) -> Unit {
        match self {
            Self::Requests | Self::ProjectRequests | Self::RequestsPerHour | Self::RequestsPerDay | Self::Unnamed => {
                Unit::Requests
            }
            Self::InputTokens => Unit::InputTokens,
            Self::OutputTokens => Unit::OutputTokens,
            Self::Tokens | Self::ProjectTokens | Self::UsageBasedTokens | Self::TokensPerHour | Self::TokensPerDay => {
                Unit::Tokens
            }
        }
    }
}

/// How a provider counts the tokens of a call before the call runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pricing {
    /// The larger of the input tokens and the maximum output tokens, as OpenAI documents it.
    Larger,
    /// The sum of the input tokens and the maximum output tokens. The provider reserves the output in advance.
    Sum,
}

/// When a permit is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReleaseAt {
    /// When the response body ends, fails or is dropped. This is the default.
    #[default]
    BodyEnd,
    /// When the response head arrives, as in tower's `ConcurrencyLimit`.
    Headers,
}

impl HintSource {
    /// The name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stated => "stated",
            Self::Reset => "reset",
        }
    }
}

impl Evidence {
    /// The name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Bare => "bare",
        }
    }
}

impl Dimension {
    /// The name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::ProjectRequests => "project_requests",
            Self::ProjectTokens => "project_tokens",
            Self::UsageBasedTokens => "usage_based_tokens",
            Self::RequestsPerHour => "requests_per_hour",
            Self::TokensPerHour => "tokens_per_hour",
            Self::RequestsPerDay => "requests_per_day",
            Self::TokensPerDay => "tokens_per_day",
            Self::Unnamed => "unnamed",
        }
    }
}

impl Unit {
    /// The name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
        }
    }
}

impl Pricing {
    /// The name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Larger => "larger",
            Self::Sum => "sum",
        }
    }
}

impl ReleaseAt {
    /// The name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BodyEnd => "body_end",
            Self::Headers => "headers",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for HintSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Pricing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ReleaseAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
