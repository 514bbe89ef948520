//! What a key learns of calls that nobody throttles, and what it does not forget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_429::{Cost, PacingConfig};
use tower_429_testing::{Latency, Limit, Provider, ServiceTime, TOKENS_HEADER};

use crate::support_retry::*;

#[tokio::test(start_paused = true)]
async fn estimates_that_are_too_high_cost_no_pace_although_nothing_is_throttled() {
    let provider = Provider::builder()
        .tokens(Limit::per_minute(60_000))
        .latency(Latency::internet())
        .service_time(ServiceTime::Fixed(secs(5)))
        .build();
    let layer = layer();
    let began = Instant::now();
    // One after another 32 at a time: the first burst is too small to be throttled.
    let next = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..32)
        .map(|_| {
            let (layer, provider, next) = (layer.clone(), provider.clone(), next.clone());
            tokio::spawn(async move {
                while next.fetch_add(1, Ordering::Relaxed) < 400 {
                    let mut request = request();
                    request.headers_mut().insert(TOKENS_HEADER, "600".parse().unwrap());
                    request.extensions_mut().insert(Cost::tokens(1_800.0));
                    let answer = layer.layer(provider.clone()).oneshot(request).await.unwrap();
                    assert_eq!(answer.status(), 200);
                    answer.into_body().collect().await.unwrap();
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(provider.seen().throttled(), 0);
    // 240,000 tokens at 1,000 a second, of which a full bucket held 60,000; the last call takes five seconds.
    let best = 180.0 + 5.0;
    let took = began.elapsed().as_secs_f64();
    assert!(took <= 1.02 * best, "{took} s");
}

#[tokio::test(start_paused = true)]
async fn the_first_call_of_a_layer_that_knows_its_tokens_is_estimated_like_all_others() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let estimate = move |_: &http::request::Parts, _: &[u8]| {
        count.fetch_add(1, Ordering::Relaxed);
        Some(Cost::tokens(900.0))
    };
    let client = client(
        &layer().pacing(PacingConfig::new().tokens_per_minute(1_000)).tokens(estimate),
        &Server::new(|_, _| Reply::ok()),
    );
    for calls in 1..=3 {
        send(&client, request()).await;
        assert_eq!(asked.load(Ordering::Relaxed), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_not_idle_while_a_stream_runs() {
    let stream = || Steps::new([Step::Pause(secs(61)), Step::Data("x".into())]);
    let server = Server::new(move |_, _| Reply::body(200, stream()));
    let layer = layer().pacing(PacingConfig::new().initial_window(2));
    let client = client(&layer, &server);
    send_all(&client, (0..20).map(|_| request())).await;
    let window = || layer.quotas().snapshot(key()).unwrap().window;
    let grown = window();
    assert!(grown > 20, "{grown}");
    send(&client, request()).await;
    assert!(window() >= grown, "{} of {grown}", window());
}

#[tokio::test(start_paused = true)]
async fn slow_answers_that_are_no_success_show_what_the_server_takes_at_once() {
    let server = Server::new(|_, _| Reply::body(404, Steps::text("x")).after(secs(1)));
    let layer = layer().pacing(PacingConfig::new().initial_window(2));
    let client = client(&layer, &server);
    send_all(&client, (0..2).map(|_| request())).await;
    assert_eq!(layer.quotas().snapshot(key()).unwrap().window, 4, "two were in flight for longer than a 429 takes");
}
