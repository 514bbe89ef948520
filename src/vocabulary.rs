//! Words that several modules share, so that these modules need not import each other.

use std::fmt;

/// What kind of answer a response is, and so what can cure it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Too many requests or tokens for now: waiting cures it.
    RateLimited,
    /// Too many calls at once: sending fewer at a time cures it.
    Concurrency,
    /// The server itself has no capacity: waiting cures it, whatever the quota.
    Overloaded,
    /// A budget, a plan or a balance is used up: no wait of a useful length cures it.
    QuotaExhausted,
    /// The request alone exceeds its limit: it can never succeed as it is.
    TooLarge,
    /// The server failed; the request may have been processed.
    ServerError,
    /// Anything else, successes included: not ours to handle.
    Pass,
}

/// Which of a key's limits a verdict speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Requests in a short window.
    Requests,
    /// Tokens in a short window.
    Tokens,
    /// Input tokens in a short window.
    InputTokens,
    /// Output tokens in a short window.
    OutputTokens,
    /// Images in a short window.
    Images,
    /// Calls at once.
    Concurrent,
    /// Requests a day.
    DailyRequests,
    /// Tokens a day.
    DailyTokens,
    /// Tokens waiting in batches.
    EnqueuedTokens,
    /// Requests waiting in batches.
    EnqueuedRequests,
}

/// Where the delay in a [`Verdict`] was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HintSource {
    /// A header or the body states when to come back.
    Stated,
    /// Only the `reset` of an exhausted bucket: the time until it is *full*, an upper bound.
    Reset,
}

/// Whether a throttling answer names the limit it speaks of; any other answer counts as named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Evidence {
    /// Its message, figures, hint or headers say which limit was met.
    Named,
    /// It says only that there was one: `Rate limit reached for fine-tuned model` and the like.
    Bare,
}

impl Kind {
    /// A name for logs and metrics.
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
    /// The same in a window of a day, where there is such a scope.
    pub(crate) const fn daily(self) -> Self {
        match self {
            Self::Requests => Self::DailyRequests,
            Self::Tokens | Self::InputTokens | Self::OutputTokens => Self::DailyTokens,
            other => other,
        }
    }

    /// A name for logs and metrics.
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

/// What a bucket counts, and over which window where its name says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dimension {
    /// Requests. The window is the server's own: a minute with most, a day with Groq and some of OpenAI's models.
    Requests,
    /// Tokens, in and out.
    Tokens,
    /// Input tokens.
    InputTokens,
    /// Output tokens.
    OutputTokens,
    /// Requests of a project.
    ProjectRequests,
    /// Tokens of a project.
    ProjectTokens,
    /// Tokens that are billed by use.
    UsageBasedTokens,
    /// Requests an hour.
    RequestsPerHour,
    /// Tokens an hour.
    TokensPerHour,
    /// Requests a day.
    RequestsPerDay,
    /// Tokens a day.
    TokensPerDay,
    /// What `x-ratelimit-limit` or the IETF's `ratelimit` count when they do not say what: requests.
    Unnamed,
}

/// What one step of a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// A request.
    Requests,
    /// A token, in or out.
    Tokens,
    /// An input token.
    InputTokens,
    /// An output token.
    OutputTokens,
}

impl Dimension {
    /// What this bucket counts.
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

/// How a provider counts the tokens of a call before it has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pricing {
    /// The larger of the text's tokens and the most that may come back, as OpenAI documents it.
    Larger,
    /// Their sum: what may come back is reserved beforehand.
    Sum,
}

/// When a permit is free again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReleaseAt {
    /// At the first of end of stream, error and drop of the response body.
    #[default]
    BodyEnd,
    /// As soon as the response's head is there, as tower's limit does.
    Headers,
}

impl HintSource {
    /// A name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stated => "stated",
            Self::Reset => "reset",
        }
    }
}

impl Evidence {
    /// A name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Bare => "bare",
        }
    }
}

impl Dimension {
    /// A name for logs and metrics, distinct for each variant.
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
    /// A name for logs and metrics, distinct for each variant.
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
    /// A name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Larger => "larger",
            Self::Sum => "sum",
        }
    }
}

impl ReleaseAt {
    /// A name for logs and metrics, distinct for each variant.
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
