//! The course of a call: latencies, service times, slots, cancellation, streams.

mod common;

use std::time::Duration;

use common::{PLAIN, call, call_with, ms, read, request, send, since, start};
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, advance, sleep, timeout};
use tower_429_testing::{Answer, Latency, Limit, Provider, ServiceTime};
use tower_service::Service as _;

const STREAM: &str = r#"{"model":"m","stream":true}"#;

fn still(request: u64, throttle: u64, answer: u64) -> Latency {
    let at = |millis| ms(millis)..ms(millis);
    Latency { request: at(request), throttle: at(throttle), answer: at(answer) }
}

#[test]
fn without_latency_an_answer_is_there_in_the_first_poll_and_needs_no_runtime() {
    let limit = Limit::per_minute(1);
    let provider = Provider::builder().requests(limit).latency(still(0, 0, 0)).build();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for status in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        let mut future = std::pin::pin!(provider.clone().call(request(&[], PLAIN)));
        let std::task::Poll::Ready(Ok(response)) = future.as_mut().poll(&mut context) else {
            panic!("not ready in the first poll");
        };
        assert_eq!(response.status(), status);
    }
}

#[tokio::test(start_paused = true)]
async fn each_leg_of_a_call_takes_its_time() {
    let provider =
        Provider::builder().latency(still(20, 50, 30)).service_time(ServiceTime::Fixed(ms(1_000))).at_once(1).build();
    let start = Instant::now();
    let served = tokio::spawn({
        let provider = provider.clone();
        async move { (call(&provider).await, since(start)) }
    });
    sleep(ms(10)).await;
    assert_eq!(provider.seen().arrived(), 0);
    assert_eq!(call(&provider).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(since(start), 80);
    let (reply, took) = served.await.unwrap();
    assert_eq!((reply.status, took), (StatusCode::OK, 1_050));
}

#[tokio::test(start_paused = true)]
async fn internet_latencies_stay_within_their_ranges_and_repeat_with_the_seed() {
    async fn times(seed: u64) -> Vec<u64> {
        let limit = Limit::new(25, 0);
        let latency = Latency::internet();
        let provider = Provider::builder().requests(limit).latency(latency).seed(seed).build();
        let mut times = Vec::new();
        for index in 0..50 {
            let start = Instant::now();
            let reply = call(&provider).await;
            assert_eq!(reply.status == StatusCode::OK, index < 25);
            let range = if index < 25 { 20..=82 } else { 40..=122 };
            assert!(range.contains(&since(start)), "{}", since(start));
            times.push(since(start));
        }
        times
    }
    assert_eq!(times(5).await, times(5).await);
    assert_ne!(times(5).await, times(6).await);
}

#[tokio::test(start_paused = true)]
async fn service_times_are_drawn_from_the_seed_and_overridden_by_the_header() {
    async fn times(seed: u64) -> Vec<u64> {
        let time = ServiceTime::LogNormal { mean: Duration::from_secs(1), sigma: 0.5 };
        let provider = Provider::builder().service_time(time).seed(seed).build();
        let mut times = Vec::new();
        for _ in 0..20 {
            let start = Instant::now();
            call(&provider).await;
            times.push(since(start));
        }
        let start = Instant::now();
        call_with(&provider, &[("x-testing-service-ms", "7")]).await;
        assert_eq!(since(start), 7);
        times
    }
    assert_eq!(times(1).await, times(1).await);
    assert_ne!(times(1).await, times(2).await);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_free_at_the_end_of_the_service_before_the_client_has_the_answer() {
    let provider = Provider::builder().at_once(2).latency(still(0, 0, 500)).build();
    let _first = start(&provider, 1_000).await;
    let _second = start(&provider, 2_000).await;
    assert_eq!(call(&provider).await.status, StatusCode::TOO_MANY_REQUESTS);
    sleep(ms(999)).await;
    assert_eq!(provider.in_flight(), 2);
    sleep(ms(1)).await;
    assert_eq!(provider.in_flight(), 1);
    let third = start(&provider, 100).await;
    assert_eq!(provider.in_flight(), 2);
    assert_eq!(third.await.unwrap().status, StatusCode::OK);
    let seen = provider.seen();
    assert_eq!((seen.accepted, seen.throttled_concurrency, seen.most_in_flight), (3, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_free_in_time_even_if_nobody_polls_the_call() {
    let provider = Provider::builder().at_once(1).build();
    let mut future = Box::pin(provider.clone().call(request(&[("x-testing-service-ms", "1000")], PLAIN)));
    assert!(timeout(ms(1), &mut future).await.is_err());
    advance(ms(999)).await;
    assert_eq!(call(&provider).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_calls_at_once_can_change_while_calls_run() {
    let provider = Provider::builder().at_once(3).build();
    for _ in 0..3 {
        start(&provider, 1_000).await;
    }
    provider.set_at_once(Some(1));
    assert_eq!(provider.in_flight(), 3);
    assert_eq!(call(&provider).await.status, StatusCode::TOO_MANY_REQUESTS);
    provider.set_at_once(None);
    assert_eq!(call(&provider).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_on_its_way_was_never_there_and_one_dropped_later_frees_its_permit() {
    let provider = Provider::builder()
        .requests(Limit::new(10, 0))
        .at_once(1)
        .latency(still(100, 0, 0))
        .service_time(ServiceTime::Fixed(ms(10_000)))
        .build();
    assert!(timeout(ms(99), call(&provider)).await.is_err());
    assert_eq!(provider.seen(), Provider::default().seen());
    assert_eq!(provider.level_requests(), 10.0);
    assert!(timeout(ms(101), call(&provider)).await.is_err());
    assert_eq!((provider.seen().accepted, provider.in_flight()), (1, 0));
    assert_eq!(provider.level_requests(), 9.0);
}

#[tokio::test(start_paused = true)]
async fn a_json_answer_has_its_exact_size_and_the_shape_of_a_completion() {
    let provider = Provider::default();
    let response = send(&provider, request(&[], PLAIN)).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["x-request-id"], "req_1");
    let size = response.body().size_hint().exact().unwrap();
    assert!(!response.body().is_end_stream());
    let reply = read(response).await;
    assert_eq!(reply.text.len() as u64, size);
    let json = reply.json();
    assert_eq!((&json["object"], &json["model"]), (&"chat.completion".into(), &"m".into()));
    assert_eq!(json["choices"][0]["message"]["role"], "assistant");
    assert_eq!(json["usage"]["prompt_tokens"], 4);
}

#[tokio::test(start_paused = true)]
async fn a_stream_sends_its_head_then_events_evenly_until_its_service_ends() {
    let provider =
        Provider::builder().service_time(ServiceTime::Fixed(ms(1_300))).streaming(5, ms(300)).at_once(1).build();
    let start = Instant::now();
    let response = send(&provider, request(&[], STREAM)).await;
    assert_eq!(since(start), 300);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let mut frames = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        frames.push((since(start), text));
    }
    let times: Vec<u64> = frames.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [500, 700, 900, 1_100, 1_300, 1_300]);
    assert!(frames[0].1.starts_with(r#"data: {"#) && frames[0].1.contains("chat.completion.chunk"));
    assert!(frames[4].1.contains(r#""finish_reason":"stop""#));
    assert_eq!(frames[5].1, "data: [DONE]\n\n");
    assert!(body.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_events_or_with_a_short_service_still_ends_well() {
    let provider = Provider::builder().streaming(0, ms(300)).answer_with(Answer::Sse).build();
    let start = Instant::now();
    assert_eq!(call(&provider).await.text, "data: [DONE]\n\n");
    assert_eq!(since(start), 300);
}

#[tokio::test(start_paused = true)]
async fn the_form_of_the_answer_follows_the_request_unless_it_is_set() {
    for (answer, body, kind) in [
        (Answer::AsAsked, PLAIN, "application/json"),
        (Answer::AsAsked, STREAM, "text/event-stream"),
        (Answer::Json, STREAM, "application/json"),
        (Answer::Sse, PLAIN, "text/event-stream"),
    ] {
        let provider = Provider::builder().answer_with(answer).build();
        let response = send(&provider, request(&[], body)).await;
        assert_eq!(response.headers()["content-type"], kind, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_frees_its_permit_when_it_is_dropped_or_when_its_time_is_over_unread() {
    let provider = Provider::builder().service_time(ServiceTime::Fixed(ms(1_000))).at_once(1).build();
    let response = send(&provider, request(&[], STREAM)).await;
    assert_eq!(provider.in_flight(), 1);
    drop(response);
    assert_eq!(provider.in_flight(), 0);
    let unread = send(&provider, request(&[], STREAM)).await;
    assert_eq!(provider.in_flight(), 1);
    advance(ms(1_000)).await;
    assert_eq!(provider.in_flight(), 0);
    drop(unread);
    assert_eq!(provider.seen().accepted, 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_break_off_with_an_error_and_is_over_then() {
    let error = r#"{"error":{"message":"overloaded"}}"#;
    let provider = Provider::builder()
        .service_time(ServiceTime::Fixed(ms(1_000)))
        .streaming(10, Duration::ZERO)
        .error_in_stream(3, error)
        .build();
    let start = Instant::now();
    let response = send(&provider, request(&[], STREAM)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let reply = read(response).await;
    assert_eq!(since(start), 300);
    let (events, last) = reply.text.trim_end().rsplit_once("\n\n").unwrap();
    assert_eq!(events.split("\n\n").count(), 3);
    assert_eq!(last, format!("event: error\ndata: {error}"));
    assert_eq!(provider.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn equal_bodies_have_equal_hashes_and_sizes_are_in_order_of_arrival() {
    let provider = Provider::builder().requests(Limit::new(1, 0)).build();
    for body in ["ab", "abc", "ab"] {
        send(&provider, request(&[], body)).await;
    }
    let seen = provider.seen();
    assert_eq!(seen.body_bytes, [2, 3, 2]);
    assert_eq!(seen.body_hashes[0], seen.body_hashes[2]);
    assert_ne!(seen.body_hashes[0], seen.body_hashes[1]);
}
