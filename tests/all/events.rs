//! What a key's controller learns beside plain headers, and what it tells: changed limits, closed keys, figures in texts, usage.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_429::classify::Dimension;
use tower_429::{Cost, Dialect, PacingConfig, QuotaEvent, QuotaKey, RetryOn429Layer};
use tower_429_testing::{Hints, Limit, Provider, RateHeaders};

fn request() -> Request<Full<Bytes>> {
    Request::post("https://api.openai.com/v1/chat/completions").body(Full::from("{\"model\":\"m\"}")).unwrap()
}

/// A status, headers and a body.
type Scripted<'a> = (u16, &'a [(&'static str, &'static str)], &'static str);

/// Answers each call with the next of these, at once.
fn script(
    answers: &[Scripted<'_>],
) -> impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible> + Clone + use<> {
    let answer = |(status, headers, body): &Scripted<'_>| {
        let response = Response::builder().status(*status);
        let response = headers.iter().fold(response, |response, (name, value)| response.header(*name, *value));
        response.body(Full::from(*body)).unwrap()
    };
    let answers: Arc<Mutex<Vec<_>>> = Arc::new(Mutex::new(answers.iter().rev().map(answer).collect()));
    service_fn(move |_| {
        let answer = answers.lock().unwrap().pop().expect("an answer for each call");
        std::future::ready(Ok::<_, Infallible>(answer))
    })
}

fn watched(layer: RetryOn429Layer) -> (RetryOn429Layer, Arc<Mutex<Vec<QuotaEvent>>>) {
    let events: Arc<Mutex<Vec<QuotaEvent>>> = Arc::default();
    let seen = Arc::clone(&events);
    (layer.on_event(move |_: QuotaKey, event| seen.lock().unwrap().push(*event)), events)
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_cut_silently_is_followed_and_reported() {
    let headers = |limit, remaining| {
        [
            ("x-ratelimit-limit-requests", limit),
            ("x-ratelimit-remaining-requests", remaining),
            ("x-ratelimit-reset-requests", "1s"),
        ]
    };
    let (layer, events) = watched(RetryOn429Layer::new());
    let (high, low) = (headers("500", "499"), headers("200", "199"));
    let client = layer.layer(script(&[(200, &high, ""), (200, &high, ""), (200, &low, "")]));
    for _ in 0..3 {
        client.clone().oneshot(request()).await.unwrap();
    }
    let expected = QuotaEvent::LimitChanged { dimension: Dimension::Requests, from: 500.0, to: 200.0 };
    assert_eq!(*events.lock().unwrap(), [expected]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_closes_and_opens_is_reported_once_each() {
    let exhausted = r#"{"error":{"message":"You exceeded your current quota.","code":"insufficient_quota"}}"#;
    let (layer, events) = watched(RetryOn429Layer::new());
    let client = layer.layer(script(&[(429, &[], exhausted), (200, &[], "")]));
    for (expected, wait) in [(429, 0), (429, 30), (200, 0)] {
        // The second is answered locally: the script has no answer for it.
        let status = client.clone().oneshot(request()).await.unwrap().status();
        assert_eq!(status, expected);
        tokio::time::advance(Duration::from_secs(wait)).await;
    }
    let closed = QuotaEvent::Closed { quota: true, retry_after: Duration::from_secs(30) };
    assert_eq!(*events.lock().unwrap(), [closed, QuotaEvent::Opened]);
}

#[tokio::test(start_paused = true)]
async fn a_429s_own_figures_stand_in_where_no_header_tells() {
    // 10 of 60 requests a minute are left when the client comes; the server sends no rate headers at all.
    let run = |hints| async move {
        let provider = Provider::builder()
            .requests(Limit::per_minute(60).starting_at(10))
            .rate_headers(RateHeaders::None)
            .hints(hints)
            .build();
        let client = RetryOn429Layer::new().layer(provider.clone());
        let calls = (0..40).map(|_| {
            let client = client.clone();
            async move { client.oneshot(request()).await.unwrap().status().as_u16() }
        });
        let start = Instant::now();
        let statuses = futures_util::future::join_all(calls).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        (provider.seen().throttled(), start.elapsed())
    };
    for hints in [Hints::Message, Hints::Neither] {
        let (throttled, time) = run(hints).await;
        assert_eq!(throttled, 1, "the first throttle tells that nothing is left");
        assert_eq!(time.as_secs(), 31, "30 calls at one a second, and a margin of one");
    }
}

#[tokio::test(start_paused = true)]
async fn a_seed_is_settled_by_what_calls_have_used() {
    // 6,000 tokens a minute are 100 a second. Estimated at 3,000 each, two calls leave nothing; they used 10 each.
    let body = r#"{"choices":[],"usage":{"total_tokens":10}}"#;
    let json = [("content-type", "application/json")];
    let client = RetryOn429Layer::new()
        .pacing(PacingConfig::new().tokens_per_minute(6_000))
        .layer(script(&[(200, &json[..], body); 3]));
    let start = Instant::now();
    for _ in 0..3 {
        let mut request = request();
        request.extensions_mut().insert(Cost::tokens(3_000.0));
        client.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(6), "nobody waits for 3,000 tokens to refill: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn input_and_output_are_held_back_by_limits_of_their_own() {
    let headers = [
        ("anthropic-ratelimit-input-tokens-limit", "60000"),
        ("anthropic-ratelimit-input-tokens-remaining", "60000"),
        ("anthropic-ratelimit-output-tokens-limit", "6000"),
        ("anthropic-ratelimit-output-tokens-remaining", "0"),
    ];
    let wait = |cost: Cost| {
        let headers = headers.to_vec();
        async move {
            let client = RetryOn429Layer::new().layer(script(&[(200, &headers, ""), (200, &headers, "")]));
            client.clone().oneshot(request()).await.unwrap();
            let start = Instant::now();
            let mut request = request();
            request.extensions_mut().insert(cost);
            client.oneshot(request).await.unwrap();
            start.elapsed()
        }
    };
    let input = wait(Cost::tokens(1_000.0).with_input(1_000.0)).await;
    assert!(input < Duration::from_secs(1), "there is input left: {input:?}");
    // No reset is told: a minute is assumed, so output refills at 100 a second.
    let output = wait(Cost::tokens(1_000.0).with_input(0.0).with_output(1_000.0)).await;
    assert!((9.0..12.0).contains(&output.as_secs_f64()), "1,000 output tokens refill in 10 s: {output:?}");
}

#[tokio::test(start_paused = true)]
async fn tokens_are_counted_as_the_provider_counts_them() {
    // 400 characters of text are 100 tokens, and 900 may come back: OpenAI takes 900, Azure 1,000.
    let headers = [
        ("x-ratelimit-limit-tokens", "6000"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "60s"),
    ];
    let body = format!(r#"{{"max_tokens":900,"messages":["{}"]}}"#, "word ".repeat(80));
    let wait = |dialect: &'static Dialect| {
        let body = body.clone();
        async move {
            let client =
                RetryOn429Layer::new().dialect(dialect).layer(script(&[(200, &headers, ""), (200, &headers, "")]));
            let call =
                || Request::post("https://localhost/v1/chat/completions").body(Full::from(body.clone())).unwrap();
            client.clone().oneshot(call()).await.unwrap();
            let start = Instant::now();
            client.oneshot(call()).await.unwrap();
            start.elapsed().as_secs_f64()
        }
    };
    let (larger, sum) = (wait(&Dialect::OPENAI).await, wait(&Dialect::AZURE_OPENAI).await);
    assert!((9.0..9.5).contains(&larger), "900 tokens at 100 a second, and a margin: {larger}");
    assert!((10.0..10.5).contains(&sum), "1,000 tokens at 100 a second, and a margin: {sum}");
}
