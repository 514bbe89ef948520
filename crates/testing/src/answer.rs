//! The responses: their status, headers and bodies.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::body::{ProviderBody, TakenSlot};
use crate::builder::Config;
use crate::facts::Facts;
use crate::go_duration;
use crate::knobs::{HintUnit, RateHeaders};
use crate::time::round_up;
use crate::verdict::{Rate, Reason, Verdict};
use crate::wording;

/// The `created` time of all responses, because the provider does not use the wall clock.
const CREATED: u64 = 1_700_000_000;

/// Creates the response to a request that could not be read.
pub(crate) fn unreadable(status: StatusCode) -> Response<ProviderBody> {
    let message = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "The request body is too long.",
        _ => "The request body could not be read.",
    };
    let body = wording::error(message, "invalid_request_error", None);
    response(status, HeaderMap::new(), "application/json", ProviderBody::full(body))
}

pub(crate) fn throttle(
    config: &Config,
    facts: &Facts,
    verdict: &Verdict,
    reason: &Reason,
    wait: Duration,
) -> Response<ProviderBody> {
    let words = wording::throttle(config, &facts.model, reason, wait);
    let told = config.rate_headers == RateHeaders::All && *reason != Reason::Quota;
    let mut headers = headers(config, verdict, told);
    if let Some(hint) = words.retry_after {
        let seconds = round_up(hint, Duration::from_secs(1)).as_secs();
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        if config.hint_unit == HintUnit::Milliseconds {
            let ms = u64::try_from(hint.as_millis()).unwrap_or(u64::MAX);
            headers.insert("retry-after-ms", HeaderValue::from(ms));
        }
    }
    let body = ProviderBody::full(words.body);
    response(StatusCode::TOO_MANY_REQUESTS, headers, "application/json", body)
}

/// Creates a successful response in one piece.
pub(crate) fn completion(config: &Config, facts: &Facts, verdict: &Verdict) -> Response<ProviderBody> {
    let (prompt, output) = (facts.prompt() as u64, facts.output as u64);
    let body = json!({
        "id": format!("chatcmpl-{}", verdict.number),
        "object": "chat.completion",
        "created": CREATED,
        "model": facts.model,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": "Hello!" },
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
        },
    });
    let headers = headers(config, verdict, config.rate_headers != RateHeaders::None);
    response(StatusCode::OK, headers, "application/json", ProviderBody::full(body.to_string()))
}

/// Creates a successful response of server-sent events. The last event arrives at `end`.
pub(crate) fn stream(
    config: &Config,
    facts: &Facts,
    verdict: &Verdict,
    end: Instant,
    permit: TakenSlot,
) -> Response<ProviderBody> {
    let headers = headers(config, verdict, config.rate_headers != RateHeaders::None);
    let body = ProviderBody::events(events(config, facts, verdict, end), permit);
    response(StatusCode::OK, headers, "text/event-stream", body)
}

fn events(config: &Config, facts: &Facts, verdict: &Verdict, end: Instant) -> Vec<(Instant, Bytes)> {
    let (head, count) = (verdict.head_at, config.events);
    let at = |index: usize| {
        let part = index as f64 / count.max(1) as f64;
        head + (end - head).mul_f64(part.min(1.0))
    };
    let (shown, error) = match &config.stream_error {
        Some((after, json)) => ((*after).min(count), Some(json)),
        None => (count, None),
    };
    let chunk = |index: usize| {
        let last = index == count;
        let chunk = json!({
            "id": format!("chatcmpl-{}", verdict.number),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": facts.model,
            "choices": [{
                "index": 0,
                "delta": { "content": format!("{index} ") },
                "finish_reason": if last { Value::from("stop") } else { Value::Null },
            }],
        });
        (at(index), Bytes::from(format!("data: {chunk}\n\n")))
    };
    let mut events: Vec<_> = (1..=shown).map(chunk).collect();
    events.push(match error {
        Some(json) => {
            let data = json.lines().collect::<Vec<_>>().join("\ndata: ");
            (at(shown), Bytes::from(format!("event: error\ndata: {data}\n\n")))
        }
        None => (end, Bytes::from_static(b"data: [DONE]\n\n")),
    });
    events
}

fn headers(config: &Config, verdict: &Verdict, rates: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(id) = HeaderValue::try_from(format!("req_{}", verdict.number)) {
        headers.insert("x-request-id", id);
    }
    if rates {
        let unit = if config.whole_second_resets { 1_000 } else { 1 };
        let unit = Duration::from_millis(unit);
        let names = ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
        tell(&mut headers, names, verdict.requests, unit);
        let names = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
        tell(&mut headers, names, verdict.tokens, unit);
    }
    headers
}

fn tell(headers: &mut HeaderMap, names: [&'static str; 3], rate: Option<Rate>, unit: Duration) {
    let Some(rate) = rate else { return };
    let [limit, remaining, reset] = names.map(HeaderName::from_static);
    headers.insert(limit, HeaderValue::from(rate.limit));
    headers.insert(remaining, HeaderValue::from(rate.remaining));
    if let Ok(text) = HeaderValue::try_from(go_duration(round_up(rate.reset, unit))) {
        headers.insert(reset, text);
    }
}

fn response(
    status: StatusCode,
    mut headers: HeaderMap,
    content_type: &'static str,
    body: ProviderBody,
) -> Response<ProviderBody> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
