//! Derives the meaning of a field of an error body from its name.

/// The longest name that is matched, without separators.
pub(crate) const MAX_NAME: usize = 40;

/// The meaning of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Code,
    Message,
    /// A code or a message: `error`, `reason`, `detail`.
    Either,
    /// A delay in seconds, or a duration with a unit.
    Delay,
    Millis,
    /// A date or a Unix time.
    Moment,
    /// The name of the counted unit: `rate_limit_type`.
    Axis,
    Limit,
    Used,
    Requested,
    Model,
    Other,
}

/// Returns the name of a field in lower case without separators, and its meaning.
pub(crate) fn field_of<'b>(key: &[u8], buffer: &'b mut [u8; MAX_NAME]) -> (&'b [u8], Field) {
    let mut length = 0;
    for byte in key.iter().filter(|b| b.is_ascii_alphanumeric()) {
        if length == buffer.len() {
            return (b"", Field::Other);
        }
        buffer[length] = byte.to_ascii_lowercase();
        length += 1;
    }
    let name = &buffer[..length];
    let field = match name {
        b"code" | b"type" | b"status" | b"statuscode" | b"errorcode" | b"errcode" | b"errortype" | b"limitsource"
        | b"quotaid" | b"quotametric" | b"errno" => Field::Code,
        b"error" | b"err" | b"reason" | b"detail" | b"details" | b"errors" | b"title" => Field::Either,
        b"message" | b"msg" | b"errormsg" | b"errormessage" | b"errmsg" | b"statusmsg" | b"statusmessage"
        | b"description" | b"errordescription" | b"raw" | b"text" | b"cause" | b"" => Field::Message,
        b"ratelimittype" | b"limittype" => Field::Axis,
        b"limit" | b"quotavalue" | b"ratelimit" | b"maxlimit" => Field::Limit,
        b"used" | b"current" | b"usage" | b"currentusage" => Field::Used,
        b"requested" => Field::Requested,
        b"model" | b"modelname" | b"modelid" => Field::Model,
        _ => time(name),
    };
    (name, field)
}

/// Recognises the fields that state a delay or a date: `retryAfterMs`, `quotaResetDelay`, `resets_at`,
/// `nextAccessTime`.
fn time(name: &[u8]) -> Field {
    const WAITS: [&[u8]; 7] = [
        b"availablein",
        b"cooldown",
        b"cooldownseconds",
        b"estimatedtime",
        b"timeremaining",
        b"waitseconds",
        b"waittime",
    ];
    const WAITS_MS: [&[u8]; 4] = [b"backoffms", b"cooldownms", b"waitms", b"waittimems"];
    const MOMENTS: [&[u8]; 5] = [b"availableat", b"blockeduntil", b"nextaccesstime", b"nextreset", b"unblockat"];
    let has = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
    let ends = |ends: &[&[u8]]| ends.iter().any(|end| name.ends_with(end));
    let comes_back = [&b"retryafter"[..], b"retryin", b"retrydelay", b"retryat", b"reset"].iter().any(|part| has(part));
    match name {
        _ if WAITS.contains(&name) => Field::Delay,
        _ if WAITS_MS.contains(&name) => Field::Millis,
        _ if MOMENTS.contains(&name) => Field::Moment,
        _ if !comes_back || has(b"password") || has(b"preset") => Field::Other,
        _ if ends(&[b"ms", b"millis", b"milliseconds"]) && !ends(&[b"atms"]) => Field::Millis,
        _ if ends(&[b"at", b"atms", b"time", b"timestamp", b"date", b"reset"]) => Field::Moment,
        _ if ends(&[b"in", b"after", b"delay", b"seconds", b"secs", b"sec"]) => Field::Delay,
        _ => Field::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name() {
        for (key, field) in [
            ("retry_after", Field::Delay),
            ("retryAfterMs", Field::Millis),
            ("retry_after_seconds", Field::Delay),
            ("retry-after-in-seconds", Field::Delay),
            ("quotaResetDelay", Field::Delay),
            ("quotaResetTimeStamp", Field::Moment),
            ("resets_in_seconds", Field::Delay),
            ("resets_at", Field::Moment),
            ("reset", Field::Moment),
            ("rate_limit_reset", Field::Moment),
            ("nextAccessTime", Field::Moment),
            ("estimated_time", Field::Delay),
            ("rate_limit_type", Field::Axis),
            ("reset_password_at", Field::Other),
            ("preset", Field::Other),
            ("__type", Field::Code),
            ("request_id", Field::Other),
        ] {
            assert_eq!(field_of(key.as_bytes(), &mut [0; MAX_NAME]).1, field, "{key}");
        }
    }
}
