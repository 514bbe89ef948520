//! A cold process that submits everything at once: prices, deadlines and waits before anything is known of the key.

use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_429::{Deadline, RejectReason};
use tower_429_testing::{Hints, Latency, Limit, Provider, RateHeaders, ServiceTime, TOKENS_HEADER};

use crate::support_retry::*;

fn chat(text: &str, max_tokens: u32) -> Req {
    let body =
        serde_json::json!({"model": "m", "max_tokens": max_tokens, "messages": [{"role": "user", "content": text}]});
    let mut request = unkeyed("{}");
    *request.body_mut() = body.to_string().into();
    request
}

/// Submits calls to a provider all at once: how many succeeded, and when the last one was done.
async fn burst(
    layer: &tower_429::RetryOn429Layer,
    provider: &Provider,
    calls: Vec<Req>,
) -> (usize, std::time::Duration) {
    let (client, began) = (layer.layer(provider.clone()), Instant::now());
    let calls: Vec<_> = calls
        .into_iter()
        .map(|call| {
            let client = client.clone();
            tokio::spawn(async move {
                let answer = client.oneshot(call).await.unwrap();
                let ok = answer.status() == 200;
                http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
                ok
            })
        })
        .collect();
    let mut done = 0;
    for call in calls {
        done += usize::from(call.await.unwrap());
    }
    (done, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_cold_process_that_submits_more_tokens_than_its_bucket_holds_loses_nothing() {
    let provider = Provider::builder()
        .tokens(Limit::per_minute(125_000))
        .requests(Limit::per_minute(10_000))
        .hints(Hints::Message)
        .latency(Latency::internet())
        .service_time(ServiceTime::Fixed(ms(500)))
        .seed(1)
        .build();
    let text = "word ".repeat(3_200);
    let calls = (0..200).map(|_| {
        let mut call = chat(&text, 16);
        call.headers_mut().insert(TOKENS_HEADER, "4000".parse().unwrap());
        call
    });
    let (done, took) = burst(&layer(), &provider, calls.collect()).await;
    let throttled = provider.seen().throttled();
    assert_eq!(done, 200);
    assert!(throttled <= 6, "{throttled}");
    // 800,000 tokens, of which a full bucket has 125,000, at 125,000 a minute.
    assert!(took <= secs(330), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_price_that_a_429_tells_is_waited_for() {
    // The estimate is 4 tokens. The server counts 600, and has 500 of 1,000 left, at 10 a second.
    let server = Server::new(|n, _| match n {
        0 => Reply::ok()
            .header("x-ratelimit-limit-tokens", "1000")
            .header("x-ratelimit-remaining-tokens", "500")
            .header("x-ratelimit-reset-tokens", "50s"),
        1 => Reply::status(
            429,
            r#"{"error":{"message":"Rate limit reached for m on tokens per min (TPM): Limit 1000, Used 500, Requested 600.","type":"tokens","code":"rate_limit_exceeded"}}"#,
        ),
        _ => Reply::ok(),
    });
    let client = client(&layer(), &server);
    send(&client, request()).await;
    assert_eq!(send(&client, request()).await.status(), 200);
    let again = server.times()[2] - server.times()[1];
    assert!(again >= secs(10), "100 tokens are missing: {again:?}");
    assert!(again <= secs(13), "and a margin of 2 %: {again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_429_that_only_tells_what_was_left_prices_its_call_above_that() {
    let server = Server::new(|n, _| match n {
        0 => Reply::status(
            429,
            r#"{"error":{"message":"Rate limit reached on tokens per min (TPM): Limit 6000, Used 5400.","type":"tokens","code":"rate_limit_exceeded"}}"#,
        ),
        _ => Reply::ok(),
    });
    let client = client(&layer(), &server);
    assert_eq!(send(&client, request()).await.status(), 200);
    assert_eq!(server.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn calls_that_reserve_a_hundred_times_what_they_use_are_counted_for_what_they_use() {
    // The server takes 300 tokens a call, whatever `max_tokens` says.
    let provider = Provider::builder()
        .tokens(Limit::per_minute(30_000))
        .latency(Latency::internet())
        .service_time(ServiceTime::Fixed(secs(1)))
        .build();
    let call = || {
        let mut call = chat("hello", 32_000);
        call.headers_mut().insert(TOKENS_HEADER, "300".parse().unwrap());
        call
    };
    let (done, took) = burst(&layer(), &provider, (0..20).map(|_| call()).collect()).await;
    assert_eq!((done, provider.seen().throttled()), (20, 0));
    assert!(took <= secs(60), "{took:?}");

    let (client, began) = (layer().layer(provider.clone()), Instant::now());
    for _ in 0..20 {
        let answer = client.clone().oneshot(call()).await.unwrap();
        assert_eq!(answer.status(), 200);
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    }
    assert!(began.elapsed() <= secs(60), "one after another: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_judged_again_when_the_first_headers_arrive() {
    // 60 a minute, told half a second after the first calls were sent: 200 calls cannot all go within 10 s.
    let server = Server::new(|n, _| {
        Reply::ok()
            .after(ms(500))
            .header("x-ratelimit-limit-requests", "60")
            .header("x-ratelimit-remaining-requests", &(60_usize.saturating_sub(n + 1)).to_string())
            .header("x-ratelimit-reset-requests", &format!("{}s", n + 1))
    });
    let calls = (0..200).map(|_| with(Deadline::within(secs(10))));
    let outcomes = send_all(&client(&layer(), &server), calls).await;
    let rejected: Vec<_> = outcomes.iter().filter(|outcome| outcome.throttle == Some(RejectReason::Deadline)).collect();
    assert!(rejected.len() >= 100, "{}", rejected.len());
    let late = rejected.iter().filter(|outcome| outcome.head > secs(2)).count();
    assert!(late <= rejected.len() / 10, "{late} waited for an answer that was known after 0.5 s");
    let told = rejected.iter().filter(|outcome| outcome.info.as_ref().unwrap().retry_after.is_some()).count();
    assert_eq!(told, rejected.len(), "each is told when its turn would have come");
}

#[tokio::test(start_paused = true)]
async fn slow_429s_are_not_taken_for_silence_that_means_success() {
    // Ten at once, and each answer, a 429 too, takes 0.7 s.
    let provider = Provider::builder()
        .at_once(10)
        .rate_headers(RateHeaders::None)
        .hints(Hints::Neither)
        .latency(Latency { request: ms(0)..ms(0), throttle: ms(700)..ms(700), answer: ms(0)..ms(0) })
        .service_time(ServiceTime::Fixed(ms(900)))
        .build();
    let (done, _) = burst(&layer(), &provider, (0..100).map(|_| request()).collect()).await;
    assert_eq!(done, 100);
    assert!(provider.seen().throttled() <= 40, "{}", provider.seen().throttled());
}
