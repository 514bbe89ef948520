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

pub(crate) fn bucket_of(name: &[u8]) -> Option<(Dimension, Part)> {
    const PREFIXES: [&[u8]; 4] = [b"x-ratelimit-", b"x-rate-limit-", b"anthropic-ratelimit-", b"ratelimit-"];
    match name {
        b"ratelimit" => Some((Dimension::Unnamed, Part::Structured)),
        b"ratelimit-policy" => Some((Dimension::Unnamed, Part::Policy)),
        _ => by_words(PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix))?),
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
