//! What a limit promises beyond its permits: bounds, deadlines, resizing, keys, sharing and the contract of a service.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::Request;
use http_body_util::Full;
use tokio::time::Instant;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_ok};
use tower::{Layer, Service, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, Deadline, LocalRejection, Priority, RejectReason};

use crate::support_limit::{Desk, Door, Req, Says, code, ms, named, request, request_with, slow, timed};

#[test]
#[should_panic(expected = "a concurrency limit of 0 lets nothing through")]
fn a_limit_of_none_is_a_mistake() {
    let _ = ConcurrencyLimitLayer::new(0);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_answers_at_once_and_a_queue_of_none_lets_nobody_wait() {
    for bound in [0, 2] {
        let layer = ConcurrencyLimitLayer::new(1).max_queue(bound);
        let inner = slow(ms(100));
        let service = layer.layer(inner.clone());
        let calls = join_all((0..4).map(|_| service.clone().oneshot(request())));
        let (answers, elapsed) = timed(calls).await;
        let mut local = 0;
        for answer in answers.into_iter().map(Result::unwrap) {
            if answer.status() == 429 {
                assert_eq!(answer.extensions().get::<LocalRejection>().unwrap().reason, RejectReason::QueueFull);
                assert_eq!(code(answer).await, "local_queue_full");
                local += 1;
            }
        }
        assert_eq!((local, inner.gauge.served().len()), (3 - bound, 1 + bound));
        assert_eq!(elapsed, ms(100 * (1 + bound as u64)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_full_of_one_class_takes_calls_of_another() {
    let layer = ConcurrencyLimitLayer::new(1).max_queue(2);
    let (service, handle) = (layer.layer(slow(ms(100))), layer.handle());
    let classes = [Priority::Batch, Priority::Normal, Priority::Interactive];
    // The first call runs; of each class two wait and one is rejected.
    let calls = (0..10).map(|n| service.clone().oneshot(request_with(classes[n % 3])));
    let mut calls = spawn(join_all(calls));
    assert_pending!(calls.poll());
    assert_eq!(handle.queued(), 6);
    let answers = calls.await.into_iter().map(|answer| answer.unwrap().status().as_u16());
    assert_eq!(answers.collect::<Vec<_>>(), [200, 200, 200, 200, 200, 200, 200, 429, 429, 429]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_woken_and_has_not_come_counts_in_its_class() {
    let layer = ConcurrencyLimitLayer::new(1).max_queue(1);
    let desk = Desk::default();
    let mut service = layer.layer(desk.clone());
    let mut call = |class| spawn(service.call(request_with(class)));
    let [mut first, mut silent] = [call(Priority::Batch), call(Priority::Batch)];
    assert_pending!(first.poll());
    assert_pending!(silent.poll());
    desk.take().empty();
    assert_ready_ok!(first.poll());
    assert!(silent.is_woken());
    assert_eq!(assert_ready_ok!(call(Priority::Batch).poll()).status(), 429);
    // It has stopped counting for the permit, and another call takes that.
    tokio::time::sleep(ms(100)).await;
    let mut other = call(Priority::Interactive);
    assert_pending!(other.poll());
    assert_eq!(desk.len(), 1);
    assert_eq!(assert_ready_ok!(call(Priority::Batch).poll()).status(), 429);
}

#[tokio::test(start_paused = true)]
async fn a_local_answer_can_be_anything_else() {
    let layer = ConcurrencyLimitLayer::new(1).max_queue(0).reject_with(|throttle| {
        let mut response = throttle.response();
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        response
    });
    let service = layer.layer(slow(ms(10)));
    let answers = join_all((0..2).map(|_| service.clone().oneshot(request()))).await;
    assert_eq!(answers.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect::<Vec<_>>(), [200, 503]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_timeout_is_exact_and_frees_the_place() {
    let layer = ConcurrencyLimitLayer::new(1).queue_timeout(ms(250));
    let service = layer.layer(slow(ms(1_000)));
    let first = tokio::spawn(service.clone().oneshot(request()));
    tokio::task::yield_now().await;
    let (answer, elapsed) = timed(service.oneshot(request())).await;
    assert_eq!((code(answer.unwrap()).await.as_str(), elapsed), ("local_queue_timeout", ms(250)));
    assert_eq!(layer.handle().queued(), 0);
    first.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_queue_timeout_or_deadline_without_end_is_none() {
    for layer in [ConcurrencyLimitLayer::new(1), ConcurrencyLimitLayer::new(1).queue_timeout(Duration::MAX)] {
        let service = layer.layer(slow(Duration::from_secs(40 * 86_400)));
        let call = || service.clone().oneshot(request_with(Deadline::within(Duration::MAX)));
        let (answers, elapsed) = timed(join_all([call(), call()])).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap().status() == 200));
        assert_eq!(elapsed, Duration::from_secs(80 * 86_400));
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_exact() {
    let layer = ConcurrencyLimitLayer::new(1);
    let service = layer.layer(slow(ms(1_000)));
    let first = tokio::spawn(service.clone().oneshot(request()));
    tokio::task::yield_now().await;
    let (answer, elapsed) = timed(service.oneshot(request_with(Deadline::within(ms(300))))).await;
    assert_eq!((code(answer.unwrap()).await.as_str(), elapsed), ("local_deadline", ms(300)));
    assert_eq!(layer.handle().queued(), 0);
    first.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_has_passed_is_answered_at_once_whether_or_not_there_is_room() {
    let layer = ConcurrencyLimitLayer::new(1);
    let inner = slow(ms(1_000));
    let service = layer.layer(inner.clone());
    let past = || request_with(Deadline::within(Duration::ZERO));
    let (answer, elapsed) = timed(service.clone().oneshot(past())).await;
    assert_eq!((code(answer.unwrap()).await.as_str(), elapsed), ("local_deadline", ms(0)));
    let first = tokio::spawn(service.clone().oneshot(request()));
    tokio::task::yield_now().await;
    let (answer, elapsed) = timed(service.oneshot(past())).await;
    assert_eq!((code(answer.unwrap()).await.as_str(), elapsed), ("local_deadline", ms(0)));
    first.await.unwrap().unwrap();
    assert_eq!(inner.gauge.served().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_for_its_permit_after_its_deadline_is_not_sent() {
    let layer = ConcurrencyLimitLayer::new(1);
    let desk = Desk::default();
    let mut service = layer.layer(desk.clone());
    let mut first = spawn(service.call(request()));
    assert_pending!(first.poll());
    let mut second = spawn(service.call(request_with(Deadline::within(ms(100)))));
    assert_pending!(second.poll());
    desk.take().empty();
    assert_ready_ok!(first.poll());
    tokio::time::sleep(ms(500)).await; // nobody polls it
    let answer = assert_ready_ok!(second.poll());
    assert_eq!(code(answer).await, "local_deadline");
    assert_eq!((desk.len(), layer.handle().in_use(), layer.handle().queued()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_handle_resizes_while_calls_wait() {
    let layer = ConcurrencyLimitLayer::new(2);
    let (inner, handle) = (slow(ms(1_000)), layer.handle());
    let service = layer.layer(inner.clone());
    let calls: Vec<_> = (0..20).map(|_| tokio::spawn(service.clone().oneshot(request()))).collect();
    let zero = Instant::now();
    let seen = async |at: u64| {
        tokio::time::sleep_until(zero + ms(at)).await;
        (handle.in_use(), handle.queued())
    };
    assert_eq!(seen(500).await, (2, 18));
    handle.resize(5); // up: three more at once
    assert_eq!(seen(501).await, (5, 15));
    handle.resize(1); // down: running calls go on
    assert_eq!(seen(502).await, (5, 15));
    assert_eq!(seen(1_100).await, (3, 15)); // the first two have ended
    assert_eq!(seen(1_600).await, (1, 14)); // the other three, and one has come
    handle.resize(0); // a pause
    assert_eq!(seen(60_000).await, (0, 14));
    handle.resize(7);
    assert_eq!(seen(60_001).await, (7, 7));
    join_all(calls).await;
    assert_eq!(zero.elapsed(), ms(62_000));
    assert_eq!((handle.in_use(), handle.queued(), inner.gauge.most()), (0, 0, 7));
}

#[tokio::test(start_paused = true)]
async fn a_paused_limit_with_a_bounded_queue_answers_locally() {
    let layer = ConcurrencyLimitLayer::new(1).max_queue(0);
    layer.handle().resize(0);
    let answer = layer.layer(slow(ms(0))).oneshot(request()).await.unwrap();
    assert_eq!(code(answer).await, "local_queue_full");
}

#[tokio::test(start_paused = true)]
async fn all_services_of_a_layer_and_of_its_clones_share_one_limit_even_if_it_is_made_per_request() {
    let layer = ConcurrencyLimitLayer::new(2);
    let inner = slow(ms(100));
    let calls = (0..6).map(|n| {
        let layer = if n % 2 == 0 { layer.clone() } else { layer.clone().max_queue(100) };
        layer.layer(inner.clone()).oneshot(request())
    });
    let (_, elapsed) = timed(join_all(calls)).await;
    assert_eq!((inner.gauge.most(), elapsed), (2, ms(300)));
}

#[tokio::test(start_paused = true)]
async fn the_readied_instance_is_the_one_called() {
    let door = Door::new(Desk::default());
    let mut service = ConcurrencyLimitLayer::new(2).layer(door.clone());
    for _ in 0..2 {
        assert_ready_ok!(spawn(service.ready()).poll());
        assert_eq!(door.readied(), 1);
        let mut call = spawn(service.call(request())); // the door panics if it was not readied
        assert_eq!(door.readied(), 0);
        assert_pending!(call.poll());
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_is_the_inner_services_and_so_is_its_error() {
    let door = Door::new(Desk::default());
    let mut service = ConcurrencyLimitLayer::new(1).layer(door.clone());
    door.says(Says::Pending);
    let mut ready = spawn(service.ready());
    assert_pending!(ready.poll());
    door.says(Says::Ready);
    assert!(ready.is_woken());
    drop(ready);
    door.says(Says::Broken);
    assert!(spawn(service.ready()).poll().is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_gives_the_readied_instance_up() {
    let desk = Desk::default();
    let door = Door::new(desk.clone());
    let mut service = ConcurrencyLimitLayer::new(1).layer(door.clone());
    let mut calls = Vec::new();
    for _ in 0..5 {
        assert_ready_ok!(spawn(service.ready()).poll());
        let mut call = spawn(service.call(request()));
        assert_eq!(door.readied(), 0);
        assert_pending!(call.poll());
        calls.push(call);
    }
    assert_eq!(desk.len(), 1);
    for mut call in calls {
        assert_pending!(call.poll());
        desk.take().empty();
        assert_ready_ok!(call.poll());
        assert_eq!(door.readied(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn two_copies_of_one_request_wait_side_by_side() {
    // A hedge below `RetryOn429` sends a copy of a request that carries its place in the queue along.
    let layer = ConcurrencyLimitLayer::new(1);
    let desk = Desk::default();
    let mut limit = layer.layer(desk.clone());
    let seen = Arc::new(std::sync::Mutex::new(None));
    let tap = seen.clone();
    let copy = tower::service_fn(move |request: Req| {
        *tap.lock().unwrap() = Some(request);
        async { Ok::<_, crate::support_limit::Boom>(http::Response::new(Full::<bytes::Bytes>::default())) }
    });
    tower_429::RetryOn429Layer::new().layer(copy).oneshot(request()).await.unwrap();
    let request: Req = seen.lock().unwrap().take().unwrap();

    let mut first = spawn(limit.call(self::request()));
    assert_pending!(first.poll());
    let mut copies = [0, 1, 2].map(|_| spawn(limit.call(request.clone())));
    copies.iter_mut().for_each(|copy| assert_pending!(copy.poll()));
    assert_eq!(layer.handle().queued(), 3);
    desk.take().empty();
    assert_ready_ok!(first.poll());
    let [mut one, two, mut three] = copies;
    assert!(one.is_woken());
    assert_pending!(one.poll());
    drop(two); // takes none of the others' places along
    assert_eq!(layer.handle().queued(), 1);
    desk.take().empty();
    assert_ready_ok!(one.poll());
    assert!(three.is_woken());
    assert_pending!(three.poll());
    assert_eq!(desk.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_its_class_from_the_request() {
    let layer = ConcurrencyLimitLayer::new(1);
    let inner = slow(ms(10));
    let mut service = layer.layer(inner.clone());
    let calls = [Priority::Batch, Priority::Batch, Priority::Interactive].map(|class| {
        let call = service.call(named(request_with(class), format!("{class:?}")));
        tokio::spawn(call)
    });
    join_all(calls).await;
    // The first had gone before the others came.
    assert_eq!(inner.gauge.served(), ["Batch", "Interactive", "Batch"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_neither_send_nor_static_is_limited_all_the_same() {
    let shared = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = &shared;
    let inner = tower::service_fn(move |_: Request<&str>| async move {
        tokio::time::sleep(ms(10)).await;
        count.set(count.get() + 1);
        Ok::<_, std::convert::Infallible>(http::Response::new(Full::<bytes::Bytes>::default()))
    });
    let service = ConcurrencyLimitLayer::new(1).layer(inner);
    let local = String::from("not static");
    let calls = (0..3).map(|_| service.clone().oneshot(Request::new(local.as_str())));
    let (_, elapsed) = timed(join_all(calls)).await;
    assert_eq!((shared.get(), elapsed), (3, ms(30)));
}
