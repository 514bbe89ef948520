//! What somebody pays who never meets a limit: each sentence of the promise a test.

use std::time::Duration;

use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_429::{PacingConfig, RetryOn429Layer};
use tower_429_testing::{Limit, Provider, ServiceTime};

use crate::support_retry::*;

/// So many calls at once, to the end of each: how long the longest took to its head, and all of them together.
async fn burst(layer: &RetryOn429Layer, provider: &Provider, calls: usize) -> (Duration, Duration) {
    let client = layer.layer(provider.clone());
    let began = Instant::now();
    let calls: Vec<_> = (0..calls)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let answer = client.oneshot(request()).await.unwrap();
                assert_eq!(answer.status(), 200);
                let head = began.elapsed();
                http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
                head
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for call in calls {
        longest = longest.max(call.await.unwrap());
    }
    (longest, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn calls_one_after_another_never_wait() {
    let limited = || Provider::builder().requests(Limit::per_minute(10_000)).tokens(Limit::per_minute(2_000_000));
    for (provider, took) in [
        (Provider::builder(), ms(0)),
        (Provider::builder(), ms(120)),
        (limited(), ms(0)),
        (limited(), ms(120)),
        (Provider::builder().requests(Limit::per_minute(600)), ms(120)),
    ] {
        let provider = provider.service_time(ServiceTime::Fixed(took)).build();
        let layer = layer();
        let mut waited = Vec::new();
        for _ in 0..200 {
            waited.push(burst(&layer, &provider, 1).await.0 - took);
        }
        let longest = waited.iter().max().unwrap();
        assert!(*longest <= ms(1), "{took:?}: {longest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_calls_at_once_to_a_silent_server_are_all_sent_within_two_seconds() {
    let server = Server::new(|_, _| Reply::ok().after(secs(10)));
    let outcomes = send_all(&client(&layer(), &server), (0..100).map(|_| request())).await;
    assert!(outcomes.iter().all(|outcome| outcome.status == 200));
    let times = server.times();
    let sent_by = |at: u64| times.iter().filter(|sent| **sent <= ms(at)).count();
    // Doubled by each 0.5 s of silence up to 64, then 32 more each time; a timer may be a millisecond late.
    assert_eq!([sent_by(0), sent_by(502), sent_by(1_004), sent_by(1_506), sent_by(2_008)], [16, 32, 64, 96, 100]);
    assert_eq!([sent_by(499), sent_by(999), sent_by(1_499), sent_by(1_999)], [16, 32, 64, 96]);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_at_once_to_a_silent_server_take_less_than_six_seconds_and_there_are_ways_out() {
    let provider = || Provider::builder().service_time(ServiceTime::Fixed(secs(1))).build();
    let (_, paced) = burst(&layer(), &provider(), 1_000).await;
    assert!(paced <= ms(5_700), "{paced:?}");
    assert_eq!(burst(&layer().pacing(PacingConfig::new().initial_window(1_000)), &provider(), 1_000).await.1, secs(1));
    assert_eq!(burst(&layer().pacing(PacingConfig::off()), &provider(), 1_000).await.1, secs(1));
}

#[tokio::test(start_paused = true)]
async fn on_a_warm_key_half_the_level_waits_five_seconds_at_most_and_the_whole_level_ten() {
    for (calls, most) in [(300, 5), (600, 10)] {
        let provider =
            Provider::builder().requests(Limit::per_minute(600)).service_time(ServiceTime::Fixed(ms(100))).build();
        let layer = layer();
        burst(&layer, &provider, 100).await;
        tokio::time::advance(secs(30)).await; // full again
        let (longest, _) = burst(&layer, &provider, calls).await;
        assert!(longest <= secs(most) + ms(100), "{calls}: {longest:?}");
        assert_eq!(provider.seen().throttled(), 0);
        tokio::time::advance(secs(60)).await;
        assert!(burst(&layer, &provider, 1).await.0 <= ms(101), "a single call never waits");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_no_model_provider_at_all_is_slowed_no_further() {
    let server = Server::new(|n, _| {
        match n % 5 {
            0 => Reply::status(404, "<html>"),
            1 => Reply::status(500, "oops"),
            2 => Reply::status(304, ""),
            _ => Reply::status(200, vec![0xff; 100]),
        }
        .after(secs(1))
    });
    let client = client(&layer(), &server);
    let outcomes = send_all(
        &client,
        (0..1_000).map(|n| {
            let mut request = unkeyed("\u{0}not json");
            *request.uri_mut() = format!("http://intranet/{n}").parse().unwrap();
            request
        }),
    )
    .await;
    let longest = outcomes.iter().map(|outcome| outcome.head).max().unwrap();
    assert_eq!(server.count(), 1_000);
    assert!(longest <= ms(5_700), "{longest:?}");
}
