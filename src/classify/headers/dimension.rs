//! Derives the bucket and the kind of value from the name of a rate-limit header.

use crate::vocabulary::{Dimension, Unit};

/// The kind of value that a header gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Limit,
    Remaining,
    Reset,
    /// The IETF draft's `ratelimit`, which holds all values of a bucket.
    Structured,
    /// The IETF draft's `ratelimit-policy`. Only the limit is read.
    Policy,
}

#[inline]
pub(crate) fn bucket_of(name: &[u8]) -> Option<(Dimension, Part)> {
    // The prefix is checked first, because nearly all headers are not rate-limit headers.
    let rest = match *name.first()? {
        b'x' => name.strip_prefix(b"x-ratelimit-").or_else(|| name.strip_prefix(b"x-rate-limit-"))?,
        b'r' => match name.strip_prefix(b"ratelimit")? {
            b"" => return Some((Dimension::Unnamed, Part::Structured)),
            b"-policy" => return Some((Dimension::Unnamed, Part::Policy)),
            rest => rest.strip_prefix(b"-")?,
        },
        b'a' => name.strip_prefix(b"anthropic-ratelimit-")?,
        _ => return None,
    };
    // OpenAI sends these six headers with each response, so they are matched without splitting the name.
    let (part, counts) = match *rest.get(2)? {
        b'm' if rest[0] == b'l' => (Part::Limit, rest.strip_prefix(b"limit-")),
        b'm' => (Part::Remaining, rest.strip_prefix(b"remaining-")),
        _ => (Part::Reset, rest.strip_prefix(b"reset-")),
    };
    match counts {
        Some(b"requests") => Some((Dimension::Requests, part)),
        Some(b"tokens") => Some((Dimension::Tokens, part)),
        _ => by_words(rest),
    }
}

/// Reads the words of a name in any order: `limit-tokens-minute`, `input-tokens-remaining`, `reset-tokens-per-day`. A
/// name with an unknown word is ignored, because its bucket may be a different one.
fn by_words(rest: &[u8]) -> Option<(Dimension, Part)> {
    let (mut part, mut unit, mut project, mut usage, mut window) = (None, None, false, false, 0);
    let mut direction = None;
    for word in rest.split(|b| matches!(b, b'-' | b'_')) {
        match word {
            b"limit" => part = Some(Part::Limit),
            b"remaining" => part = Some(Part::Remaining),
            b"reset" => part = Some(Part::Reset),
            b"requests" | b"request" | b"req" => unit = Some(Unit::Requests),
            b"tokens" | b"token" => unit = Some(Unit::Tokens),
            b"input" | b"prompt" => direction = Some(Unit::InputTokens),
            b"output" | b"generated" | b"completion" => direction = Some(Unit::OutputTokens),
            b"project" => project = true,
            b"usage" | b"based" => usage = true,
            b"hour" => window = 3600,
            b"day" => window = 86_400,
            b"per" | b"minute" | b"after" => {}
            _ => return None,
        }
    }
    let dimension = match (unit, direction, project, usage, window) {
        (None, None, false, false, 0) => Dimension::Unnamed,
        (Some(Unit::Requests), None, false, false, 0) => Dimension::Requests,
        (Some(Unit::Requests), None, false, false, 3600) => Dimension::RequestsPerHour,
        (Some(Unit::Requests), None, false, false, 86_400) => Dimension::RequestsPerDay,
        (Some(Unit::Requests), None, true, false, 0) => Dimension::ProjectRequests,
        (Some(Unit::Tokens), None, false, false, 0) => Dimension::Tokens,
        (Some(Unit::Tokens), None, false, false, 3600) => Dimension::TokensPerHour,
        (Some(Unit::Tokens), None, false, false, 86_400) => Dimension::TokensPerDay,
        (Some(Unit::Tokens), None, true, false, 0) => Dimension::ProjectTokens,
        (Some(Unit::Tokens), None, false, true, 0) => Dimension::UsageBasedTokens,
        (Some(Unit::Tokens), Some(Unit::InputTokens), false, false, 0) => Dimension::InputTokens,
        (Some(Unit::Tokens), Some(Unit::OutputTokens), false, false, 0) => Dimension::OutputTokens,
        _ => return None,
    };
    Some((dimension, part?))
}
