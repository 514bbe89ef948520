//! Classification never panics and stays within its bounds, whatever a server sends.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use tower_429::classify::{RateLimitSnapshot, Verdict, retry_after, should_retry};

/// No delay is longer, so that adding one to any clock is safe.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

const NAMES: [&str; 22] = [
    "retry-after",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "date",
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-reset",
    "x-ratelimit-reset",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-reset-requests-day",
    "anthropic-ratelimit-tokens-reset",
    "anthropic-ratelimit-unified-reset",
    "x-amzn-errortype",
    "x-should-retry",
    "x-ratelimit-timeremaining",
    "x-ratelimit-remaining-tokens-5-minute",
    "x-ratelimit-reset-tokens-5-minute",
    "x-ai-ratelimit-retry-after",
    "x-ai-ratelimit-remaining-minute-a",
    "reset_at",
];

const SEEDS: [&str; 8] = [
    r#"{"error":{"message":"Rate limit reached for gpt-4o in organization org-example on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Please try again in 2.5s.","type":"tokens","code":"rate_limit_exceeded"}}"#,
    r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"q","details":[{"retryDelay":"36.4s"}]}}]"#,
    "data: {\"error\": {'message': \"it's \\u6162 \\ud83d\\ude00 \\\\\", 'code': None}}\n\n",
    r#"{"error":{"message":"{\"error\":{\"code\":\"1302\",\"message\":\"并发 请在 30 秒后重试\"}}"}}"#,
    "<html><h1>429</h1>retry after 2024-01-01T00:00:00Z wait 20.09:58:55 (actual/limit): 5/4</html>",
    r#"{"__type":"a#b","details":[{"retryDelay":{"seconds":"7"}}],"note":"Reset at 2026-09-19 20:01:30 +0800 CST (33/32 used)"}"#,
    r#"{"error":{"type":"api_error","message":"x: [{\"why\":\"balance is $0.00, retry after PT1M2.5S, 余额为 0 将于 2026/09/19 20:01 重置\"}]"}}"#,
    "Limit: 15/1min. Current: 16/1min. 20,000 input tokens per minute, wait 1 hour and 5 minutes; try again at 1.",
];

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn check(status: u16, headers: &HeaderMap, body: &[u8]) {
    let verdict = Verdict::of_at(StatusCode::from_u16(status).unwrap(), headers, body, now());
    let hints = [verdict.retry_after, retry_after(headers, now())];
    for delay in hints.into_iter().flatten() {
        assert!(delay <= LONGEST);
        assert_eq!(delay.subsec_nanos() % 1_000_000, 0);
    }
    for figure in [verdict.limit, verdict.used, verdict.requested].into_iter().flatten() {
        assert!(figure >= 0.0 && figure.is_finite());
    }
    let _ = should_retry(headers);
    for bucket in RateLimitSnapshot::at(headers, now()).iter().flat_map(|snapshot| snapshot.buckets()) {
        assert!(bucket.reset.is_none_or(|reset| reset <= LONGEST));
        assert!(bucket.limit.is_none_or(|limit| limit >= 0.0 && limit.is_finite()));
    }
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[0-9]{1,25}".prop_map(String::into_bytes),
        "[-+]?[0-9.]{1,12}(e[0-9]{1,4})?[a-z]{0,3}".prop_map(String::into_bytes),
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:?[0-9]{2})?"
            .prop_map(String::into_bytes),
        "\"[a-z]\";(r|t|q|w)=[0-9]{1,3};(r|t)=[0-9-]{1,3}".prop_map(String::into_bytes),
        Just(b"Tue, 14 Nov 2023 22:13:50 GMT".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    proptest::collection::vec((proptest::sample::select(&NAMES[..]), value()), 0..6).prop_map(|pairs| {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                map.append(HeaderName::from_static(name), value);
            }
        }
        map
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(status in 100_u16..600, headers in headers(), body in proptest::collection::vec(any::<u8>(), 0..300)) {
        check(status, &headers, &body);
    }

    #[test]
    fn any_text(headers in headers(), body in "[ -~\\n{}\"'\\\\:,0-9é秒请在]{0,200}") {
        check(429, &headers, body.as_bytes());
    }

    #[test]
    fn mutated(seed in 0..SEEDS.len(), at in 0_usize..400, byte in any::<u8>(), status in prop_oneof![Just(429_u16), Just(200), Just(400)]) {
        let mut body = SEEDS[seed].as_bytes().to_vec();
        let at = at % body.len();
        body[at] = byte;
        check(status, &HeaderMap::new(), &body);
    }

    #[test]
    fn go_durations_round_trip(ms in 1_u64..10_000_000_000) {
        let (hours, minutes, secs, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
        let fraction = if rest == 0 { String::new() } else { format!(".{rest:03}") };
        let written = match (hours, minutes, secs) {
            (0, 0, 0) => format!("{rest}ms"),
            (0, 0, _) => format!("{secs}{fraction}s"),
            (0, ..) => format!("{minutes}m{secs}{fraction}s"),
            _ => format!("{hours}h{minutes}m{secs}{fraction}s"),
        };
        let body = format!("Please try again in {written}. Visit us.");
        let verdict = Verdict::of_at(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), body.as_bytes(), now());
        prop_assert_eq!(verdict.stated(), Some(Duration::from_millis(ms)));
        let header = HeaderMap::from_iter([(http::header::RETRY_AFTER, HeaderValue::from_str(&written).unwrap())]);
        prop_assert_eq!(retry_after(&header, now()), Some(Duration::from_millis(ms)));
    }
}

#[test]
fn cut_off_anywhere() {
    for seed in SEEDS {
        for end in 0..seed.len() {
            for status in [200, 429, 503] {
                check(status, &HeaderMap::new(), &seed.as_bytes()[..end]);
            }
        }
    }
}

#[test]
fn a_cut_off_delay_is_not_a_shorter_or_longer_one() {
    let whole = SEEDS[0];
    for end in 0..whole.len() {
        let verdict = Verdict::of_at(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), &whole.as_bytes()[..end], now());
        assert!(matches!(verdict.retry_after.map(|d| d.as_millis()), None | Some(2500)), "{}", &whole[..end]);
        assert!(matches!(verdict.limit.map(|limit| limit as u32), None | Some(30_000)), "{}", &whole[..end]);
    }
}

#[test]
fn ten_megabytes_take_no_longer_than_64_kilobytes() {
    let patterns = [
        "[", "{\"a\":", "wait ", "limit ", "tokens ", "\\u", "\"", "1", "1,000,", "model a-", "per ", "data: {'",
        "<p>", " ",
    ];
    for pattern in patterns {
        let body = pattern.repeat(10 * 1024 * 1024 / pattern.len());
        let nested = format!("{{\"error\":{{\"message\":{:?}}}}}", &body[..32 * 1024]);
        check(429, &HeaderMap::new(), body.as_bytes());
        check(429, &HeaderMap::new(), nested.as_bytes());
    }
}

/// What the header parser reads of a delay with units; it knows no clock, so that only such a delay is read.
fn read_reset(text: &str) -> Option<Duration> {
    let mut headers = HeaderMap::new();
    for (name, value) in [("limit", "10"), ("remaining", "5"), ("reset", text)] {
        let name = HeaderName::try_from(format!("x-ratelimit-{name}-requests")).unwrap();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    RateLimitSnapshot::from_headers(&headers)?.buckets()[0].reset
}

proptest! {
    #[test]
    fn delays_with_units_are_read_as_humantime_and_jiff_read_them(
        hours in 0..200_u64, minutes in 0..600_u64, seconds in 0..600_u64, millis in 0..2_000_u64, spaced: bool,
    ) {
        let parts = [(hours, "h"), (minutes, "m"), (seconds, "s"), (millis, "ms")];
        let parts: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
        let text = parts.join(if spaced { " " } else { "" });
        prop_assume!(!text.is_empty());
        let human = humantime::parse_duration(&text).unwrap();
        let jiff: jiff::SignedDuration = text.parse().unwrap();
        prop_assert_eq!(Duration::try_from(jiff).unwrap(), human, "the oracles agree on {}", text);
        prop_assert_eq!(read_reset(&text), Some(human), "{}", text);
    }

    #[test]
    fn whatever_humantime_writes_is_read_back(millis in 1..400_000_000_u64) {
        // Beyond a day it writes `1day 2h`, which no server does.
        let time = Duration::from_millis(millis % 86_400_000);
        let text = humantime::format_duration(time).to_string();
        prop_assert_eq!(read_reset(&text), Some(time), "{}", text);
    }
}
