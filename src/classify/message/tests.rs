use super::*;
use crate::classify::parse::duration;

fn read(text: &str) -> Wording<'static> {
    let line: &'static str = Box::leak(format!("{text}\n").into_boxed_str());
    Wording::read(line, &|| Some(Duration::from_secs(1_700_000_000)))
}

#[test]
fn scopes() {
    for (text, scope) in [
        ("Rate limit reached for m-1 on tokens per min (TPM): Limit 5", Some(Scope::Tokens)),
        ("on requests per day (RPD): Limit 5", Some(Scope::DailyRequests)),
        ("of 20,000 input tokens per minute", Some(Scope::InputTokens)),
        ("You exceeded token rate limit of your tier", Some(Scope::Tokens)),
        ("exceeded call rate limit", Some(Scope::Requests)),
        ("Rate limit reached for requests", Some(Scope::Requests)),
        ("Rate limit of 50 per 86400s exceeded", Some(Scope::DailyRequests)),
        ("Enqueued token limit reached", Some(Scope::EnqueuedTokens)),
        ("Limit: 200 / day.", Some(Scope::DailyRequests)),
        ("Rate limit reached for fine-tuned model", None),
        ("Too many requests, please slow down", None),
    ] {
        assert_eq!(read(text).scope(), scope, "{text}");
    }
}

#[test]
fn numbers() {
    for (text, limit, used, requested) in [
        ("Limit 6000, Used 5034, Requested ~1443", Some(6000.0), Some(5034.0), Some(1443.0)),
        ("Limit: 60.000000 / min. Current: 70.000000 / min.", Some(60.0), Some(70.0), None),
        ("Limit: 15/1min", Some(15.0), None, None),
        ("(actual/limit): 65605/16000", Some(16000.0), Some(65605.0), None),
        ("of 1,000,000 input tokens per minute", Some(1e6), None, None),
        ("limit: 30K", Some(30_000.0), None, None),
        ("for limit gpt-4.1-long-context", None, None, None),
    ] {
        let found = read(text);
        assert_eq!((found.size(), found.used, found.requested), (limit, used, requested), "{text}");
    }
}

#[test]
fn delays() {
    for (text, ms) in [
        ("Please try again in 6m0s. Visit", Some(360_000)),
        ("please try again after 1 seconds", Some(1000)),
        ("Please retry after 60 seconds", Some(60_000)),
        ("Please wait 52220 seconds before retrying", Some(52_220_000)),
        ("Expected available in 831.0 seconds.", Some(831_000)),
        ("Try again in 58 hours", Some(208_800_000)),
        ("replenished in 1.00:00:05", Some(86_405_000)),
        ("try again at 2023-11-14T22:13:50Z", Some(30_000)),
        ("请在 30 秒后重试", Some(30_000)),
        ("Retry-After: 7", Some(7000)),
        ("try again in -5 seconds", None),
        ("retry after a brief wait", None),
        ("try again in an hour", None),
        ("maxWaitMs (15000ms)", None),
        ("10 per 86400s", None),
    ] {
        let delay = read(text).delay.map(|d| duration::ceil_ms(d).as_millis() as u64);
        assert_eq!(delay, ms, "{text}");
    }
}

#[test]
fn models() {
    for (text, model) in [
        ("Rate limit reached for gpt-4.1 in organization org-x", Some("gpt-4.1")),
        ("reached for ft:gpt-3.5-turbo:acme::8x in", Some("ft:gpt-3.5-turbo:acme::8x")),
        ("reached for model `llama-3.3-70b-versatile` in", Some("llama-3.3-70b-versatile")),
        ("limit: 20, model: gemini-2.5-pro.", Some("gemini-2.5-pro")),
        ("qwen/qwen3:free is temporarily rate-limited upstream", Some("qwen/qwen3:free")),
        ("reached for requests", None),
        ("reached for fine-tuned model", None),
        ("reached for organization org-abc1 on", None),
    ] {
        assert_eq!(read(text).model, model, "{text}");
    }
}

#[test]
fn windows_of_a_month() {
    for (text, month) in [
        ("Monthly token usage limit reached", true),
        ("You exceeded your weekly rate limit", true),
        ("Maximum calls reached for this month", true),
        ("1000 calls / month", true),
        ("Consider our monthly plan, it has a higher quota", false),
        ("Billed monthly. Rate limit reached", false),
    ] {
        assert_eq!(read(text).month, month, "{text}");
    }
}

#[test]
fn used_and_limit_in_one() {
    for (text, used, limit) in [
        ("Request limit reached (33/32)", Some(33.0), Some(32.0)),
        ("Plan limit (1500/1500 used)", Some(1500.0), Some(1500.0)),
        ("Limit: 15/1min", None, Some(15.0)),
        ("Cost limit of $25.00 reached", None, None),
        ("Quota: 0 requests left", None, None),
        ("Used 12 USD of 10 USD", None, None),
        ("Request reached max request: 3,", None, Some(3.0)),
    ] {
        let found = read(text);
        assert_eq!((found.used, found.size()), (used, limit), "{text}");
    }
}

#[test]
fn delays_before_their_phrase() {
    for (text, secs) in [
        ("请 30 秒后重试", Some(30)),
        ("1分30秒后再试", Some(90)),
        ("12s until reset", Some(12)),
        ("30초 후에 다시 시도하세요", Some(30)),
        ("请于 20:00:20 后重试", None),
        ("try again at 20:00:20.", None),
        ("try again in 00:00:20.", Some(20)),
        ("some time before retrying", None),
    ] {
        assert_eq!(read(text).delay.map(|delay| delay.as_secs()), secs, "{text}");
    }
}

#[test]
fn an_address_is_no_model() {
    for text in [
        "requests to api.host-1.example/v1 were too many",
        "reached for user@mail-host.com",
        "reached for https://host-1.example/x",
        "reached for 2001:db8:85a3:8d3",
    ] {
        assert_eq!(read(text).model, None, "{text}");
    }
}

#[test]
fn hours_of_a_plan_and_of_a_rate() {
    for (text, stop) in [
        ("5-hour usage limit reached", true),
        ("7-day limit reached", true),
        ("five hour limit", true),
        ("60 requests per 1 hour limit reached", false),
        ("Per-hour limit reached", false),
    ] {
        assert_eq!(read(text).stop, stop, "{text}");
    }
}
