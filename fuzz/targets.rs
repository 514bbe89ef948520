//! What is fuzzed, as functions: for cargo-fuzz, and for the test that runs the saved inputs.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tower::{Layer, ServiceExt, service_fn};
use tower_429::classify::{self, RateLimitSnapshot};
use tower_429::{RetryOn429Layer, Verdict};

/// No delay is longer than this, whatever a server says: 200 years.
const LONGEST: Duration = Duration::from_secs(200 * 366 * 86_400);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Lines of `name: value` as headers, whatever they hold.
fn headers_of(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// Headers: no panic, no negative or endless figure.
pub(crate) fn headers(data: &[u8]) {
    let headers = headers_of(data);
    if let Some(shown) = RateLimitSnapshot::from_headers(&headers) {
        for bucket in shown.buckets() {
            let sane = |value: Option<f64>| value.is_none_or(|value| value.is_finite() && value >= 0.0);
            assert!(sane(bucket.limit) && sane(bucket.remaining), "{bucket:?}");
            assert!(bucket.reset.is_none_or(|reset| reset <= LONGEST), "{bucket:?}");
        }
    }
    assert!(classify::retry_after(&headers, now()).is_none_or(|delay| delay <= LONGEST));
    let _ = classify::should_retry(&headers);
    for status in [429, 503, 200, 400] {
        judge(StatusCode::from_u16(status).expect("a status"), &headers, b"");
    }
}

/// An error body, after a byte that picks the status.
pub(crate) fn error_body(data: &[u8]) {
    let Some((pick, body)) = data.split_first() else { return };
    let statuses = [429, 400, 401, 402, 403, 404, 412, 413, 422, 498, 500, 502, 503, 504, 524, 529, 200];
    let status = statuses[usize::from(*pick) % statuses.len()];
    judge(StatusCode::from_u16(status).expect("a status"), &HeaderMap::new(), body);
}

fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8]) {
    let verdict = Verdict::of_at(status, headers, body, now());
    assert_eq!(verdict, Verdict::of_at(status, headers, body, now()), "the same bytes give the same verdict");
    assert!(verdict.retry_after.is_none_or(|delay| delay <= LONGEST), "{verdict:?}");
    for figure in [verdict.limit, verdict.used, verdict.requested].into_iter().flatten() {
        assert!(figure.is_finite(), "{verdict:?}");
    }
}

/// A delay, in each place where one may stand.
pub(crate) fn durations(data: &[u8]) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(data) {
        for name in ["retry-after", "retry-after-ms", "x-ratelimit-reset-requests", "anthropic-ratelimit-tokens-reset"]
        {
            headers.clear();
            headers.insert(name, value.clone());
            assert!(classify::retry_after(&headers, now()).is_none_or(|delay| delay <= LONGEST), "{name}");
            judge(StatusCode::TOO_MANY_REQUESTS, &headers, b"");
        }
    }
    let text = [&b"{\"error\":{\"message\":\"Rate limit reached. Please try again in "[..], data, b".\"}}"].concat();
    judge(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), &text);
}

/// An event stream in frames of any size: the caller gets it byte for byte. The first bytes say where it is cut.
pub(crate) fn stream(data: &[u8]) {
    let (cuts, body) = data.split_at(data.len().min(8));
    let mut frames = Vec::new();
    let mut rest = body;
    for cut in cuts.iter().cycle().take(64) {
        let (frame, after) = rest.split_at(rest.len().min(usize::from(*cut)));
        frames.push(Bytes::copy_from_slice(frame));
        rest = after;
    }
    frames.push(Bytes::copy_from_slice(rest));
    let inner = service_fn(move |_: Request<Full<Bytes>>| {
        let frames = frames.clone().into_iter().map(|frame| Ok::<_, Infallible>(Frame::data(frame)));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let response = Response::builder().header("content-type", "text/event-stream").body(body);
        std::future::ready(Ok::<_, Infallible>(response.expect("a response of constants")))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    for peek in [false, true] {
        let client = RetryOn429Layer::new().max_retries(0).peek_first_event(peek).layer(inner.clone());
        let read = runtime.block_on(async {
            let response = client.oneshot(Request::new(Full::default())).await.expect("infallible");
            response.into_body().collect().await.expect("infallible").to_bytes()
        });
        assert_eq!(read, body, "byte for byte");
    }
}
