//! The two layers together, in the right order and in the wrong one.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::Instant;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_ok};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_429::{
    ConcurrencyLimitLayer, Deadline, LocalRejection, PacingConfig, Priority, QuotaKey, Quotas, RejectReason, RetryInfo,
    RetryOn429Layer, StopReason,
};
use tower_429_testing::{Hints, Limit, Provider, ServiceTime};

use crate::support_limit::{Boom, Desk, Door, Req, Says, Scripted, code, ms, named, request, slow, timed};

/// All calls under one key, which tests can ask for.
fn key() -> QuotaKey {
    QuotaKey::new("the key")
}

fn call() -> Req {
    crate::support_limit::request_with(key())
}

fn retry() -> RetryOn429Layer {
    RetryOn429Layer::new().seed(7)
}

/// A 429 as OpenAI words it.
fn throttled(hint: Duration) -> Response<http_body_util::Full<bytes::Bytes>> {
    let body = r#"{"error":{"message":"Rate limit reached for gpt-4o on requests per min (RPM): Limit 500, Used 500, Requested 1.","type":"requests","code":"rate_limit_exceeded"}}"#;
    let hint = hint.as_millis().to_string();
    Response::builder().status(429).header("retry-after-ms", hint).body(body.into()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_at_once_go_in_order_by_class() {
    let inner = slow(ms(10));
    let mut client = ServiceBuilder::new().layer(retry()).layer(ConcurrencyLimitLayer::new(2)).service(inner.clone());
    let calls: Vec<_> = (0..1_000)
        .map(|n| {
            let mut request = call();
            request.extensions_mut().insert(if n % 2 == 0 { Priority::Interactive } else { Priority::Batch });
            client.call(named(request, n))
        })
        .collect();
    let (answers, elapsed) = timed(join_all(calls)).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    assert_eq!((inner.gauge.most(), elapsed), (2, ms(5_000)));
    let served: Vec<usize> = inner.gauge.served().iter().map(|name| name.parse().unwrap()).collect();
    assert_eq!(served.len(), 1_000);
    // The window of 16 was full of both classes before anybody waited.
    let waited = &served[16..];
    let (fast, batch): (Vec<usize>, Vec<usize>) = waited.iter().partition(|n| **n % 2 == 0);
    assert!(fast.is_sorted() && batch.is_sorted());
    let first = &waited[..340];
    let batch = first.iter().filter(|n| **n % 2 == 1).count();
    assert!((15..=40).contains(&batch), "16 to 1, and those at the door: {batch}");
}

#[tokio::test(start_paused = true)]
async fn two_stacks_share_a_limit() {
    let inner = slow(ms(10));
    let limit = ConcurrencyLimitLayer::new(3);
    let stacks = [retry(), retry()].map(|retry| retry.layer(limit.layer(inner.clone())));
    let calls = (0..30).map(|n| stacks[n % 2].clone().oneshot(call()));
    let (_, elapsed) = timed(join_all(calls)).await;
    assert_eq!((inner.gauge.most(), elapsed), (3, ms(100)));
}

#[tokio::test(start_paused = true)]
async fn towers_buffer_may_stand_between_the_two() {
    let inner = slow(ms(10));
    let limited = ConcurrencyLimitLayer::new(2).layer(inner.clone());
    // Two places: what waits for the controller or in the limit must hold none of them.
    let client = retry().layer(tower::buffer::Buffer::new(limited, 2));
    let calls = (0..40).map(|_| client.clone().oneshot(call()));
    let (answers, elapsed) = timed(join_all(calls)).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == StatusCode::OK));
    assert_eq!((inner.gauge.most(), elapsed), (2, ms(200)));
}

/// A stack over a desk; each call that the test answers takes as long as the test lets it.
fn desk_stack(
    n: usize,
) -> (
    impl Service<Req, Response = Response<impl Sized>, Error = Boom, Future: Send> + Clone,
    Desk,
    ConcurrencyLimitLayer,
    Quotas,
) {
    let (layer, limit, desk) = (retry(), ConcurrencyLimitLayer::new(n), Desk::default());
    let quotas = layer.quotas();
    (layer.layer(limit.layer(desk.clone())), desk, limit, quotas)
}

/// A call to the end of its body: kept unread, it would keep its permit.
async fn read<B: Body, E: std::fmt::Debug>(
    call: impl Future<Output = Result<Response<B>, E>>,
) -> http::response::Parts {
    let (parts, body) = call.await.unwrap().into_parts();
    assert!(body.collect().await.is_ok());
    parts
}

/// A service whose first call is throttled after 100 ms with this hint, and whose other calls take 1 s.
fn refusing_first(
    hint: Duration,
) -> impl Service<Req, Response = Response<http_body_util::Full<bytes::Bytes>>, Error = Boom, Future: Send> + Clone {
    let first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let start = Instant::now();
    tower::service_fn(move |request: Req| {
        let first = first.swap(false, std::sync::atomic::Ordering::SeqCst);
        async move {
            let at = start.elapsed();
            tokio::time::sleep(if first { ms(100) } else { ms(1_000) }).await;
            let mut response = if first { throttled(hint) } else { Response::new("ok".into()) };
            response.headers_mut().insert("x-at", (at.as_millis() as u64).into());
            drop(request);
            Ok(response)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_call_that_queued_in_the_limit_while_a_cooldown_began_does_not_go_out_early() {
    let layer = retry();
    let limit = ConcurrencyLimitLayer::new(1);
    let client = layer.layer(limit.layer(refusing_first(ms(5_000))));
    let start = Instant::now();
    let calls: Vec<_> = (0..3).map(|_| tokio::spawn(read(client.clone().oneshot(call())))).collect();
    tokio::time::sleep(ms(101)).await;
    let cooldown = layer.quotas().snapshot(key()).unwrap().state.cooldown().unwrap();
    assert!(cooldown >= ms(5_000 - 1), "{cooldown:?}");
    let opens = start.elapsed() + cooldown;
    // The two that queued below wait for the controller, without a permit.
    assert_eq!((limit.handle().in_use(), limit.handle().queued()), (0, 0));
    let mut sent = Vec::new();
    for answer in join_all(calls).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        sent.push(ms(answer.headers["x-at"].to_str().unwrap().parse().unwrap()));
    }
    sent.sort();
    assert_eq!(sent.len(), 3);
    // tokio's timers fire on the full millisecond.
    assert!(sent[0] >= opens - ms(1) && sent[0] <= opens + ms(1), "{sent:?} {opens:?}");
    assert_eq!((sent[1] - sent[0], sent[2] - sent[1]), (ms(1_000), ms(1_000)));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_service_gets_ready_late_looks_at_the_controller_again_and_gives_its_instance_up() {
    let (layer, limit, desk) = (retry(), ConcurrencyLimitLayer::new(2), Desk::default());
    let door = Door::new(desk.clone());
    let mut client = layer.layer(limit.layer(door.clone()));
    let mut running = Vec::new();
    for _ in 0..2 {
        assert_ready_ok!(spawn(client.ready()).poll());
        let mut call = spawn(client.call(call()));
        assert_pending!(call.poll());
        running.push(call);
    }
    assert_ready_ok!(spawn(client.ready()).poll());
    let mut queued = spawn(client.call(call()));
    assert_pending!(queued.poll());
    assert_eq!(limit.handle().queued(), 1);
    // It gets its permit, and the service takes its time.
    door.says(Says::Pending);
    desk.take().empty();
    assert_ready_ok!(running.remove(0).poll());
    assert!(queued.is_woken());
    assert_pending!(queued.poll());
    assert_eq!((limit.handle().in_use(), limit.handle().queued()), (2, 0));
    // Meanwhile a 429 cools the key down.
    let throttle = desk.take();
    throttle.throttle(ms(5_000));
    let mut other = running.remove(0);
    assert_pending!(other.poll());
    door.says(Says::Ready);
    assert_pending!(queued.poll());
    assert_eq!((desk.len(), limit.handle().in_use(), door.readied()), (0, 0, 0), "nothing is held while it waits");
    let start = Instant::now();
    while desk.len() == 0 {
        tokio::time::sleep(ms(1)).await;
        for call in [&mut queued, &mut other] {
            if call.is_woken() {
                assert_pending!(call.poll());
            }
        }
        assert!(start.elapsed() < ms(20_000), "hangs");
    }
    assert!(start.elapsed() >= ms(5_000), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_at_the_controller_whose_service_gets_ready_after_a_cooldown_began_gives_its_instance_up() {
    let (layer, desk) = (retry().pacing(PacingConfig::new().initial_window(2)), Desk::default());
    let door = Door::new(desk.clone());
    let mut client = layer.layer(door.clone());
    let mut running = Vec::new();
    for _ in 0..2 {
        assert_ready_ok!(spawn(client.ready()).poll());
        let mut call = spawn(client.call(call()));
        assert_pending!(call.poll());
        running.push(call);
    }
    assert_ready_ok!(spawn(client.ready()).poll());
    let mut queued = spawn(client.call(call()));
    assert_pending!(queued.poll());
    assert_eq!(layer.quotas().snapshot(key()).unwrap().queued, 1);
    door.says(Says::Pending);
    desk.take().empty();
    assert_ready_ok!(running.remove(0).poll());
    assert!(queued.is_woken());
    assert_pending!(queued.poll());
    assert_eq!(layer.quotas().snapshot(key()).unwrap().queued, 0, "admitted");
    desk.take().throttle(ms(5_000));
    let mut other = running.remove(0);
    assert_pending!(other.poll());
    door.says(Says::Ready);
    assert_pending!(queued.poll());
    assert_eq!((desk.len(), door.readied()), (0, 0));
    assert_eq!(layer.quotas().snapshot(key()).unwrap().queued, 2);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_before_the_end_of_the_cooldown_is_answered_at_once() {
    let limit = ConcurrencyLimitLayer::new(1);
    let client = retry().layer(limit.layer(refusing_first(ms(5_000))));
    let first = tokio::spawn(client.clone().oneshot(call()));
    tokio::task::yield_now().await;
    let mut request = call();
    request.extensions_mut().insert(Deadline::within(ms(3_000)));
    let (answer, elapsed) = timed(client.oneshot(request)).await;
    let answer = answer.unwrap();
    assert_eq!(answer.extensions().get::<RetryInfo>().unwrap().stopped, Some(StopReason::Local));
    assert_eq!((code(answer).await.as_str(), elapsed), ("local_deadline", ms(100)));
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_closes_while_a_call_is_queued_in_the_limit_answers_it_and_lets_the_probe_through() {
    let limit = ConcurrencyLimitLayer::new(1);
    let layer = retry();
    let client = layer.layer(limit.layer(refusing_first(Duration::from_secs(86_400))));
    let (first, second) = tokio::join!(client.clone().oneshot(call()), client.clone().oneshot(call()));
    let first = first.unwrap();
    assert_eq!(first.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(first.extensions().get::<RetryInfo>().unwrap().stopped, Some(StopReason::HintTooLong));
    let second = second.unwrap();
    assert_eq!(second.extensions().get::<LocalRejection>().unwrap().reason, RejectReason::Cooldown);
    assert_eq!(code(second).await, "local_cooldown");
    assert_eq!((limit.handle().in_use(), limit.handle().queued()), (0, 0));

    // A probe that has to queue in the limit is let through, too.
    tokio::time::sleep(Duration::from_secs(121)).await;
    let filler = tokio::spawn(limit.layer(slow(ms(500))).oneshot(request()));
    tokio::task::yield_now().await;
    let (probe, elapsed) = timed(client.clone().oneshot(call())).await;
    assert_eq!((probe.unwrap().status(), elapsed), (StatusCode::OK, ms(1_500)));
    filler.await.unwrap().unwrap();
    assert_eq!(client.oneshot(call()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_local_429_of_the_limit_goes_up_at_once_and_teaches_nothing() {
    let layer = retry();
    let limit = ConcurrencyLimitLayer::new(1).max_queue(0);
    let inner = slow(ms(1_000));
    let client = layer.layer(limit.layer(inner.clone()));
    let running = tokio::spawn(client.clone().oneshot(call()));
    tokio::task::yield_now().await;
    let before = layer.quotas().snapshot(key()).unwrap();
    for _ in 0..100 {
        let (answer, elapsed) = timed(client.clone().oneshot(call())).await;
        let answer = answer.unwrap();
        let info = answer.extensions().get::<RetryInfo>().unwrap();
        assert_eq!((info.attempts, info.stopped, info.verdict.is_none()), (1, Some(StopReason::Local), true));
        assert_eq!((code(answer).await.as_str(), elapsed), ("local_queue_full", ms(0)));
    }
    assert_eq!(layer.quotas().snapshot(key()).unwrap(), before);
    assert_eq!(running.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(inner.gauge.served().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_limit_above_the_retry_works_and_costs_a_permit_while_a_call_sleeps() {
    let provider = || {
        let requests = Limit::per_minute(60).capacity(1);
        Provider::builder().requests(requests).hints(Hints::Headers).service_time(ServiceTime::Fixed(ms(10))).build()
    };
    let wrong = ConcurrencyLimitLayer::new(1);
    let server = provider();
    let client = ServiceBuilder::new().layer(wrong.clone()).layer(retry()).service(server.clone());
    let calls: Vec<_> = (0..3).map(|_| tokio::spawn(read(client.clone().oneshot(call())))).collect();
    tokio::time::sleep(ms(500)).await;
    assert_eq!((wrong.handle().in_use(), server.in_flight()), (1, 0), "it sleeps with its permit");
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }

    let right = ConcurrencyLimitLayer::new(1);
    let server = provider();
    let client = ServiceBuilder::new().layer(retry()).layer(right.clone()).service(server.clone());
    let calls: Vec<_> = (0..3).map(|_| tokio::spawn(read(client.clone().oneshot(call())))).collect();
    tokio::time::sleep(ms(500)).await;
    assert_eq!((right.handle().in_use(), server.in_flight()), (0, 0), "it sleeps without one");
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_per_key_counts_by_the_key_that_the_retry_found() {
    let inner = slow(ms(10));
    let client = retry().layer(ConcurrencyLimitLayer::new(1).per_key().layer(inner.clone()));
    let call = |model: &str| {
        let mut request = request();
        *request.body_mut() = format!(r#"{{"model":"{model}"}}"#).into();
        client.clone().oneshot(request)
    };
    let (_, elapsed) = timed(join_all(["a", "b", "a", "c", "b"].map(call))).await;
    assert_eq!((inner.gauge.most(), elapsed), (3, ms(20)));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_anywhere_leaves_nothing_behind() {
    let (mut client, desk, limit, quotas) = desk_stack(2);
    let mut calls: Vec<_> = (0..40).map(|_| spawn(client.call(call()))).collect();
    calls.iter_mut().for_each(|call| assert!(call.poll().is_pending()));
    assert_eq!((desk.len(), limit.handle().in_use(), limit.handle().queued()), (2, 2, 14));
    assert_eq!(quotas.snapshot(key()).unwrap().queued, 24);
    // From the middle, so that calls of all three kinds go before those that they would let in.
    let middle = calls.len() / 3;
    calls.drain(middle..);
    calls.drain(1..);
    assert_eq!((limit.handle().in_use(), limit.handle().queued()), (1, 0));
    let before = quotas.snapshot(key()).unwrap();
    assert_eq!((before.in_flight, before.queued), (1, 0));
    drop(desk.take());
    drop(desk.take());
    calls.clear();
    assert_eq!(limit.handle().in_use(), 0);
    assert_eq!(quotas.snapshot(key()).unwrap().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn the_permits_of_both_layers_come_back_with_the_body() {
    let (mut client, desk, limit, quotas) = desk_stack(1);
    let mut call = spawn(client.call(call()));
    assert!(call.poll().is_pending());
    desk.take().answer(Scripted::new([crate::support_limit::Step::Data("a")]));
    let std::task::Poll::Ready(Ok(response)) = call.poll() else { panic!("answered") };
    assert_eq!((limit.handle().in_use(), quotas.snapshot(key()).unwrap().in_flight), (1, 1));
    drop(response);
    assert_eq!((limit.handle().in_use(), quotas.snapshot(key()).unwrap().in_flight), (0, 0));
}
