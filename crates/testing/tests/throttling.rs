//! What 429s and headers say, under each wording, hint and header setting.

mod common;

use common::{Reply, call, call_for, call_with, start};
use http::StatusCode;
use tokio::time::advance;
use tower_429_testing::{Builder, Charge, HintUnit, Hints, Limit, Provider, RateHeaders, Wording};

const BARE: &str =
    r#"{"error":{"message":"Rate limit reached for fine-tuned model","type":"requests","code":"rate_limit_exceeded"}}"#;

/// A provider with 500 requests a minute, all used up.
fn used_up() -> Builder {
    let limit = Limit::per_minute(500).starting_at(0);
    Provider::builder().requests(limit).charge_throttled(Charge::Nothing)
}

async fn throttled_by_rate(builder: Builder) -> Reply {
    let reply = call(&builder.build()).await;
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    reply
}

async fn throttled_by_concurrency(builder: Builder) -> Reply {
    let reply = call(&builder.at_once(0).build()).await;
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
    reply
}

fn hints(reply: &Reply) -> (Option<&str>, Option<&str>) {
    (reply.header("retry-after-ms"), reply.header("retry-after"))
}

#[tokio::test(start_paused = true)]
async fn a_429_by_requests_reads_as_openai_writes_it() {
    let reply = throttled_by_rate(used_up()).await;
    assert_eq!(
        reply.text,
        r#"{"error":{"message":"Rate limit reached for m in organization org-test on requests per min (RPM): Limit 500, Used 500, Requested 1. Please try again in 120ms. Visit https://platform.openai.com/account/rate-limits to learn more.","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#
    );
    assert_eq!(hints(&reply), (Some("120"), Some("1")));
}

#[tokio::test(start_paused = true)]
async fn a_429_by_tokens_names_the_price() {
    let limit = Limit::per_minute(90_000).starting_at(300);
    let provider = Provider::builder().tokens(limit).build();
    let reply = call_for(&provider, 2_100).await;
    assert!(
        reply.message().starts_with(
            "Rate limit reached for m in organization org-test on tokens per min (TPM): \
             Limit 90000, Used 89700, Requested 2100. Please try again in 1.2s. Visit"
        ),
        "{}",
        reply.message()
    );
    assert_eq!(reply.json()["error"]["type"], "tokens");
    assert_eq!(hints(&reply), (Some("1200"), Some("2")));
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_a_day_is_told_per_day() {
    let day = std::time::Duration::from_secs(86_400);
    let limit = Limit::per(200, day).starting_at(0);
    let reply = call(&Provider::builder().requests(limit).build()).await;
    assert!(reply.message().contains("on requests per day (RPD): Limit 200, Used 200"));
    assert!(reply.message().contains("try again in 7m12s."), "{}", reply.message());
    assert_eq!(reply.header("x-ratelimit-reset-requests"), Some("24h0m0s"));
}

#[tokio::test(start_paused = true)]
async fn a_429_by_concurrency_says_so_and_hints_at_a_second() {
    let reply = throttled_by_concurrency(Provider::builder()).await;
    assert_eq!(reply.message(), "Too many concurrent requests: at most 0 at once for m. Please try again in 1s.");
    assert_eq!(hints(&reply), (Some("1000"), Some("1")));
    let reply = throttled_by_concurrency(Provider::builder().hint_concurrency(false)).await;
    assert_eq!(reply.message(), "Too many concurrent requests: at most 0 at once for m.");
    assert_eq!(hints(&reply), (None, None));
}

#[tokio::test(start_paused = true)]
async fn hints_stand_where_they_are_asked_for() {
    for (place, header, message) in [
        (Hints::Headers, true, false),
        (Hints::Message, false, true),
        (Hints::Both, true, true),
        (Hints::Neither, false, false),
    ] {
        let reply = throttled_by_rate(used_up().hints(place)).await;
        assert_eq!(reply.header("retry-after").is_some(), header, "{place:?}");
        assert_eq!(reply.header("retry-after-ms").is_some(), header, "{place:?}");
        assert_eq!(reply.message().contains("Please try again in 120ms."), message, "{place:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hints_in_seconds_are_rounded_up_and_alone() {
    let reply = throttled_by_rate(used_up().hint_unit(HintUnit::Seconds)).await;
    assert_eq!(hints(&reply), (None, Some("1")));
    assert!(reply.message().contains("Please try again in 1s."));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_never_refills_hints_at_a_year() {
    let limit = Limit::new(5, 0).starting_at(0);
    let reply = throttled_by_rate(Provider::builder().requests(limit)).await;
    assert_eq!(hints(&reply), (Some("31622400000"), Some("31622400")));
    assert_eq!(reply.header("x-ratelimit-reset-requests"), Some("8784h0m0s"));
}

#[tokio::test(start_paused = true)]
async fn the_bare_wordings_hide_what_they_say_they_hide() {
    // wording: (bare, hinted) of a 429 by rate, then by concurrency
    for (wording, rate, concurrency) in [
        (Wording::OpenAi, (false, true), (false, true)),
        (Wording::Bare, (true, false), (true, false)),
        (Wording::BareRate, (true, true), (true, false)),
        (Wording::BareConcurrency, (false, true), (true, false)),
    ] {
        let reply = throttled_by_rate(used_up().wording(wording)).await;
        assert_eq!((reply.text == BARE, hints(&reply).0 == Some("120")), rate, "{wording:?}");
        let reply = throttled_by_concurrency(used_up().wording(wording)).await;
        let found = (reply.text == BARE, hints(&reply).1.is_some());
        assert_eq!(found, concurrency, "{wording:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rate_headers_stand_on_the_answers_they_are_asked_for() {
    for (on, success, throttle) in
        [(RateHeaders::All, true, true), (RateHeaders::SuccessOnly, true, false), (RateHeaders::None, false, false)]
    {
        let limit = Limit::per_minute(60).capacity(1);
        let provider = Provider::builder().requests(limit).rate_headers(on).build();
        for expected in [success, throttle] {
            let reply = call(&provider).await;
            let found = reply.header("x-ratelimit-remaining-requests") == Some("0");
            assert_eq!(found, expected, "{on:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn headers_tell_limit_remaining_and_reset_after_the_call_was_charged() {
    let builder = Provider::builder().requests(Limit::per_minute(500)).tokens(Limit::per_minute(90_000).starting_at(0));
    let provider = builder.clone().build();
    call_for(&provider, 0).await;
    advance(common::ms(30_000)).await;
    let reply = call_for(&provider, 1_000).await;
    let names = ["limit", "remaining", "reset"];
    let told = |unit: &str| names.map(|name| reply.header(&format!("x-ratelimit-{name}-{unit}")).unwrap().to_owned());
    assert_eq!(told("requests"), ["500", "499", "120ms"]);
    assert_eq!(told("tokens"), ["90000", "44000", "30.667s"]);
    let reply = call_for(&builder.whole_second_resets().build(), 0).await;
    assert_eq!(reply.header("x-ratelimit-reset-requests"), Some("1s"));
    assert_eq!(reply.header("x-ratelimit-reset-tokens"), Some("1m0s"));
}

#[tokio::test(start_paused = true)]
async fn the_quota_ends_after_its_calls_and_whenever_it_is_told_to() {
    let limit = Limit::per_minute(500);
    let provider = Provider::builder().requests(limit).quota_of(2).wording(Wording::Bare).build();
    for _ in 0..2 {
        assert_eq!(call(&provider).await.status, StatusCode::OK);
    }
    let reply = call(&provider).await;
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(reply.json()["error"]["type"], "insufficient_quota");
    assert_eq!(reply.json()["error"]["code"], "insufficient_quota");
    assert_eq!(hints(&reply), (None, None));
    assert_eq!(reply.header("x-ratelimit-limit-requests"), None);
    assert_eq!(provider.level_requests(), 498.0);

    provider.restore_quota();
    assert_eq!(call(&provider).await.status, StatusCode::OK);
    provider.end_quota();
    assert_eq!(call(&provider).await.json()["error"]["code"], "insufficient_quota");
    provider.restore_quota();
    assert_eq!(call(&provider).await.status, StatusCode::OK);
    assert_eq!((provider.seen().accepted, provider.seen().throttled_quota), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_asked_before_requests_and_requests_before_tokens() {
    let provider = Provider::builder()
        .requests(Limit::new(1, 1))
        .tokens(Limit::new(10, 1))
        .hidden(Limit::new(1, 1))
        .at_once(1)
        .build();
    let served = start(&provider, 100).await;
    let all = [("x-testing-tokens", "10")];
    call_with(&provider, &all).await;
    assert_eq!(provider.seen().throttled_concurrency, 1);
    served.await.unwrap();
    call_with(&provider, &all).await;
    assert_eq!(provider.seen().throttled_requests, 1);
    advance(common::ms(1_000)).await;
    call_with(&provider, &all).await;
    assert_eq!(provider.seen().throttled_tokens, 1);
    assert_eq!(provider.seen().throttled(), 3);
}
