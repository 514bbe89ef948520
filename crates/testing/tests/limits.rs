//! Limits on requests and tokens: buckets, windows, debts, cuts, other tenants.

mod common;

use std::time::Duration;

use common::{PLAIN, accepted_in_a_row, call, call_for, call_with, ms, read, request, send, start};
use http::StatusCode;
use tokio::time::{advance, sleep};
use tower_429_testing::{Charge, LONGEST_WAIT, Limit, Provider};

#[tokio::test(start_paused = true)]
async fn without_limits_every_call_is_accepted_and_no_rate_header_is_there() {
    let provider = Provider::default();
    for _ in 0..1_000 {
        assert_eq!(call(&provider).await.status, StatusCode::OK);
    }
    let reply = call(&provider).await;
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("x-ratelimit")));
    assert_eq!(provider.level_requests(), f64::INFINITY);
    assert_eq!(provider.level_tokens(), f64::INFINITY);
    assert_eq!(provider.wait_for(1e9), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_continuous_limit_gives_back_one_request_at_a_time() {
    let provider = Provider::builder().requests(Limit::per_minute(60)).build();
    assert_eq!(accepted_in_a_row(&provider).await, 60);
    advance(ms(999)).await;
    assert_eq!(accepted_in_a_row(&provider).await, 0);
    advance(ms(1)).await;
    assert_eq!(accepted_in_a_row(&provider).await, 1);
    advance(ms(30_000)).await;
    assert_eq!(accepted_in_a_row(&provider).await, 30);
}

#[tokio::test(start_paused = true)]
async fn a_fixed_window_gives_everything_back_at_its_end() {
    let limit = Limit::per_minute(60).fixed_window();
    let provider = Provider::builder().requests(limit).build();
    advance(ms(7_000)).await;
    assert_eq!(accepted_in_a_row(&provider).await, 60);
    advance(ms(59_999)).await;
    let throttled = call(&provider).await;
    assert_eq!(throttled.header("x-ratelimit-reset-requests"), Some("1ms"));
    assert_eq!(throttled.header("retry-after-ms"), Some("1"));
    advance(ms(1)).await;
    assert_eq!(accepted_in_a_row(&provider).await, 60);
}

#[tokio::test(start_paused = true)]
async fn a_limit_may_start_below_its_capacity_and_in_debt() {
    let limit = Limit::new(10, 1);
    let provider = Provider::builder().requests(limit.starting_at(3)).build();
    assert_eq!(provider.level_requests(), 3.0);
    assert_eq!(accepted_in_a_row(&provider).await, 3);
    let provider = Provider::builder().requests(limit.starting_at(-4)).build();
    assert_eq!(provider.wait_for(0.0), ms(5_000));
}

#[tokio::test(start_paused = true)]
async fn a_limit_enforced_by_the_second_still_shows_the_minute() {
    let limit = Limit::per_minute(600).capacity(10).shown_as(600);
    let provider = Provider::builder().requests(limit).build();
    let first = call(&provider).await;
    assert_eq!(first.header("x-ratelimit-limit-requests"), Some("600"));
    assert_eq!(first.header("x-ratelimit-remaining-requests"), Some("9"));
    assert_eq!(first.header("x-ratelimit-reset-requests"), Some("100ms"));
    assert_eq!(accepted_in_a_row(&provider).await, 9);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_paid_on_arrival_and_a_call_larger_than_the_limit_needs_a_full_bucket() {
    let provider = Provider::builder().tokens(Limit::new(1_000, 100)).build();
    assert_eq!(call_for(&provider, 1).await.status, StatusCode::OK);
    let throttled = call_for(&provider, 5_000).await;
    assert_eq!(throttled.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(throttled.header("retry-after-ms"), Some("10"));
    assert_eq!(provider.wait_for(5_000.0), ms(10));
    advance(ms(10)).await;
    assert_eq!(call_for(&provider, 5_000).await.status, StatusCode::OK);
    assert_eq!(provider.level_tokens(), -4_000.0);
    assert_eq!(provider.wait_for(1.0), ms(40_010));
    assert_eq!(provider.seen().throttled_tokens, 1);
}

#[tokio::test(start_paused = true)]
async fn a_hidden_limit_refuses_while_the_headers_show_room() {
    let provider = Provider::builder().requests(Limit::per_minute(500)).hidden(Limit::new(2, 500.0 / 60.0)).build();
    assert_eq!(accepted_in_a_row(&provider).await, 2);
    let throttled = call(&provider).await;
    assert_eq!(throttled.header("x-ratelimit-remaining-requests"), Some("496"));
    assert_eq!(throttled.header("retry-after-ms"), Some("120"));
    assert!(throttled.message().contains("Limit 500"), "{}", throttled.message());
    assert_eq!(provider.seen().throttled_hidden, 2);
}

#[tokio::test(start_paused = true)]
async fn a_burnt_429_costs_what_is_there_and_no_more() {
    let builder = Provider::builder().requests(Limit::new(5, 1)).at_once(1);
    let provider = builder.clone().build();
    let _served = start(&provider, 1).await;
    for left in [3.0, 2.0, 1.0, 0.0, 0.0] {
        assert_eq!(call(&provider).await.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(provider.level_requests(), left);
    }
    let provider = builder.charge_throttled(Charge::Nothing).build();
    let _served = start(&provider, 1).await;
    call(&provider).await;
    assert_eq!(provider.level_requests(), 4.0);
}

#[tokio::test(start_paused = true)]
async fn a_429_in_debt_makes_the_way_back_longer_down_to_a_floor() {
    let provider =
        Provider::builder().requests(Limit::new(4, 1).starting_at(0)).charge_throttled(Charge::Debt(0.5)).build();
    for (level, wait) in [(-1.0, 2_000), (-2.0, 3_000), (-2.0, 3_000)] {
        let throttled = call(&provider).await;
        assert_eq!(throttled.header("x-ratelimit-remaining-requests"), Some("0"));
        assert_eq!(provider.level_requests(), level);
        assert_eq!(provider.wait_for(0.0), ms(wait));
    }
}

#[tokio::test(start_paused = true)]
async fn unused_tokens_come_back_at_the_end_of_the_service() {
    let provider = Provider::builder().tokens(Limit::new(1_000, 0)).refund_unused_tokens().build();
    let headers = [("x-testing-tokens", "500"), ("x-testing-output-tokens", "30"), ("x-testing-service-ms", "1000")];
    let client = provider.clone();
    let task = tokio::spawn(async move { read(send(&client, request(&headers, r#"{"max_tokens":400}"#)).await).await });
    sleep(ms(999)).await;
    assert_eq!(provider.level_tokens(), 500.0);
    sleep(ms(1)).await;
    assert_eq!(provider.level_tokens(), 870.0);
    let usage = &task.await.unwrap().json()["usage"];
    assert_eq!(usage["prompt_tokens"], 100);
    assert_eq!(usage["completion_tokens"], 30);
    assert_eq!(usage["total_tokens"], 130);
}

#[tokio::test(start_paused = true)]
async fn post_paid_output_is_charged_at_the_end_even_into_debt() {
    let provider = Provider::builder().tokens(Limit::new(1_000, 0)).post_paid().build();
    let headers = [("x-testing-tokens", "900"), ("x-testing-output-tokens", "300")];
    call_with(&provider, &headers).await;
    assert_eq!(provider.level_tokens(), -200.0);
    assert_eq!(call_for(&provider, 1).await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn a_cut_makes_every_limit_smaller_and_slower_also_for_new_keys() {
    let provider = Provider::builder()
        .requests(Limit::new(500, 10))
        .tokens(Limit::new(10_000, 100))
        .hidden(Limit::new(300, 10))
        .build();
    let first = call_for(&provider, 0).await;
    assert_eq!(first.header("x-ratelimit-limit-requests"), Some("500"));
    provider.cut(0.4);
    for key in ["", "another"] {
        let reply = call_with(&provider, &[("api-key", key), ("x-testing-tokens", "0")]).await;
        assert_eq!(reply.header("x-ratelimit-limit-requests"), Some("200"));
        assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("199"));
        assert_eq!(reply.header("x-ratelimit-reset-requests"), Some("250ms"));
        assert_eq!(reply.header("x-ratelimit-limit-tokens"), Some("4000"));
    }
    assert_eq!(accepted_in_a_row(&provider).await, 119);
    provider.cut(f64::NAN);
    assert_eq!(accepted_in_a_row(&provider).await, 0);
    assert_eq!(provider.wait_for(0.0), LONGEST_WAIT);
}

#[tokio::test(start_paused = true)]
async fn each_credential_and_model_has_limits_of_its_own_unless_the_key_is_shared() {
    let callers = [
        (("authorization", "Bearer a"), r#"{"model":"m"}"#),
        (("authorization", "Bearer b"), r#"{"model":"m"}"#),
        (("api-key", "a"), r#"{"model":"m"}"#),
        (("api-key", "a"), r#"{"model":"n"}"#),
    ];
    let builder = Provider::builder().requests(Limit::per_minute(1));
    let (own, shared) = (builder.clone().build(), builder.shared_key().build());
    for (index, (key, body)) in callers.iter().enumerate() {
        assert_eq!(send(&own, request(&[*key], body)).await.status(), StatusCode::OK);
        let expected = if index == 0 { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        assert_eq!(send(&shared, request(&[*key], body)).await.status(), expected);
    }
    let seen = own.seen();
    assert_eq!((seen.accepted, seen.by_key.len()), (4, 4));
    let one = &seen.by_key[&("Bearer b".to_owned(), "m".to_owned())];
    assert_eq!((one.accepted, one.arrived(), one.body_bytes.as_slice()), (1, 1, &[PLAIN.len()][..]));
    assert_eq!(shared.seen().by_key.len(), 1);
}

/// The levels of a limit that only other tenants use, second by second.
async fn levels_under_foreign_use(seed: u64, looks_per_second: u32) -> Vec<f64> {
    let provider = Provider::builder()
        .requests(Limit::new(1_000, 0))
        .tokens(Limit::new(100_000, 0))
        .foreign(3.0, 200.0)
        .seed(seed)
        .build();
    call_for(&provider, 0).await;
    let mut levels = Vec::new();
    for _ in 0..60 {
        for _ in 0..looks_per_second {
            advance(Duration::from_secs(1) / looks_per_second).await;
            let _ = provider.seen();
        }
        levels.push(provider.level_requests());
        let calls = 999.0 - provider.level_requests();
        assert_eq!(provider.level_tokens(), 100_000.0 - 200.0 * calls);
    }
    levels
}

#[tokio::test(start_paused = true)]
async fn other_tenants_call_at_the_same_moments_for_the_same_seed_however_often_one_looks() {
    let levels = levels_under_foreign_use(1, 1).await;
    assert_eq!(levels, levels_under_foreign_use(1, 10).await);
    assert_ne!(levels, levels_under_foreign_use(2, 1).await);
    let calls = 999.0 - levels[59];
    assert!((140.0..220.0).contains(&calls), "{calls} calls in a minute at 3 a second");
}

#[tokio::test(start_paused = true)]
async fn other_tenants_leave_an_empty_limit_alone() {
    let provider = Provider::builder().requests(Limit::new(5, 0)).foreign(f64::INFINITY, f64::NAN).build();
    call(&provider).await;
    advance(ms(1_000)).await;
    assert_eq!(provider.level_requests(), 0.0);
    let none = Provider::builder().requests(Limit::new(5, 0)).foreign(f64::NAN, 1.0).build();
    call(&none).await;
    advance(ms(1_000)).await;
    assert_eq!(none.level_requests(), 4.0);
}

#[tokio::test(start_paused = true)]
async fn waiting_as_long_as_the_oracle_says_is_enough_and_a_moment_less_is_not() {
    let provider = Provider::builder()
        .requests(Limit::per_minute(777).capacity(3))
        .tokens(Limit::per_minute(91_234).capacity(900))
        .charge_throttled(Charge::Nothing)
        .build();
    for price in [1_u32, 350, 20, 899, 5_000, 3].repeat(20) {
        let wait = provider.wait_for(f64::from(price));
        if wait > ms(1) {
            advance(wait - Duration::from_micros(1)).await;
            assert_eq!(call_for(&provider, price).await.status, StatusCode::TOO_MANY_REQUESTS);
        }
        advance(provider.wait_for(f64::from(price))).await;
        assert_eq!(call_for(&provider, price).await.status, StatusCode::OK);
    }
}
