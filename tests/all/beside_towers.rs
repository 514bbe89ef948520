//! Beside tower's own limit: streams that it does not count, and loops in which it hangs.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tower::{Layer, Service, ServiceExt};
use tower_429::ConcurrencyLimitLayer;
use tower_429_testing::{Answer, Provider, ServiceTime};

use crate::support_limit::{Req, ms, request, slow, timed};

const LONG: Duration = Duration::from_secs(3_600);

/// Calls in a `select!` loop: while one arm runs, the other call is not polled.
async fn in_a_select_loop<S>(service: S)
where
    S: Service<Req, Response: Sized, Error = Infallible> + Clone,
{
    let mut pending: Vec<_> = (0..8).map(|_| Box::pin(service.clone().oneshot(request()))).collect();
    while let Some(mut first) = pending.pop() {
        let mut rest = std::mem::take(&mut pending).into_iter();
        let Some(mut second) = rest.next() else {
            first.await.unwrap();
            break;
        };
        tokio::select! {
            done = &mut first => {
                done.unwrap();
                pending.push(second);
            }
            done = &mut second => {
                done.unwrap();
                pending.push(first);
            }
        }
        pending.extend(rest);
        // A further call here, while those of the loop are not polled.
        service.clone().oneshot(request()).await.unwrap();
    }
}

/// Twenty calls, with a follow-up call in the body of the loop that reads their answers.
async fn in_a_loop_with_follow_ups<S>(service: S)
where
    S: Service<Req, Response: Sized, Error = Infallible> + Clone,
{
    let calls = (0..20).map(|_| service.clone().oneshot(request()));
    let mut answers = futures_util::stream::iter(calls).buffer_unordered(8);
    while let Some(answer) = answers.next().await {
        drop(answer.unwrap());
        service.clone().oneshot(request()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_select_loop_ends_with_our_limit_and_hangs_with_towers() {
    let ours = ConcurrencyLimitLayer::new(1).layer(slow(ms(10)));
    let (done, elapsed) = timed(timeout(LONG, in_a_select_loop(ours))).await;
    done.expect("hangs");
    assert!(elapsed <= ms(600), "{elapsed:?}"); // 16 calls of 10 ms, and 20 ms for each silent waiter

    let towers = tower::limit::ConcurrencyLimit::new(slow(ms(10)), 1);
    assert!(timeout(LONG, in_a_select_loop(towers)).await.is_err(), "tower's limit does not hang any more: tell it");
}

#[tokio::test(start_paused = true)]
async fn a_follow_up_call_in_the_loop_that_reads_answers_ends_with_our_limit_and_hangs_with_towers() {
    for limit in [1, 2, 4] {
        let ours = ConcurrencyLimitLayer::new(limit).layer(slow(ms(10)));
        let (done, elapsed) = timed(timeout(LONG, in_a_loop_with_follow_ups(ours))).await;
        done.expect("hangs");
        assert!(elapsed <= ms(1_400), "limit {limit}: {elapsed:?}"); // 40 calls of 10 ms, and some silent rounds

        let towers = tower::limit::ConcurrencyLimit::new(slow(ms(10)), limit);
        let towers = timeout(LONG, in_a_loop_with_follow_ups(towers)).await;
        assert!(towers.is_err(), "limit {limit}: tower's limit does not hang any more: tell it");
    }
}

async fn six_streams<S, RB>(client: S) -> Duration
where
    S: Service<Request<String>, Response = Response<RB>, Error: std::fmt::Debug> + Clone,
    RB: Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let streams = (0..6).map(|_| {
        let client = client.clone();
        async move {
            let request = Request::new(r#"{"model":"m","stream":true}"#.to_owned());
            client.oneshot(request).await.unwrap().into_body().collect().await.unwrap();
        }
    });
    timed(futures_util::future::join_all(streams)).await.1
}

fn streaming() -> Provider {
    let time = ServiceTime::Fixed(ms(1_000));
    Provider::builder().answer_with(Answer::Sse).streaming(4, ms(100)).service_time(time).build()
}

#[tokio::test(start_paused = true)]
async fn six_streams_through_a_limit_of_two_are_two_at_the_server_and_through_towers_limit_six() {
    let ours = streaming();
    let elapsed = six_streams(ConcurrencyLimitLayer::new(2).layer(ours.clone())).await;
    assert_eq!((ours.seen().most_in_flight, ours.seen().accepted), (2, 6));
    assert_eq!(elapsed, ms(3_000), "three rounds of two");

    // tower's permit is free again when the head is there, 100 ms into a stream of a second.
    let towers = streaming();
    six_streams(tower::limit::ConcurrencyLimit::new(towers.clone(), 2)).await;
    assert_eq!((towers.seen().most_in_flight, towers.seen().accepted), (6, 6));
}
