//! Response bodies that nobody reads: their permits are lent to the calls that wait, and everything adds up again.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use http::Response;
use http_body_util::{BodyExt, Full};
use tokio::time::timeout;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_ok};
use tower::{Layer, Service, ServiceExt};
use tower_429::{ConcurrencyLimit, ConcurrencyLimitLayer, LimitHandle, Priority, QuotaKey};

use crate::support_limit::{Desk, Req, Scripted, Step, ms, request, request_with, timed};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Answers each call after 10 ms with a body that is not over with its head.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    awaited: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Service<Req> for Answers {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        let this = self.clone();
        this.most.fetch_max(this.awaited.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Box::pin(async move {
            tokio::time::sleep(ms(10)).await;
            this.awaited.fetch_sub(1, Ordering::SeqCst);
            Ok(Response::new(Full::from("body")))
        })
    }
}

pub(crate) async fn read<B>(response: Response<B>)
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    assert_eq!(response.status(), 200, "{:?}", response.extensions().get::<tower_429::RetryInfo>());
    assert!(!response.into_body().collect().await.unwrap().to_bytes().is_empty());
}

/// The pattern ends within 5 s.
pub(crate) async fn within_five_seconds<T>(pattern: impl Future<Output = T>) -> T {
    timeout(5 * SECOND, pattern).await.expect("hangs")
}

/// All heads first, then all bodies.
pub(crate) async fn heads_then_bodies<S, B>(service: S, n: usize)
where
    S: Service<Req, Response = Response<B>, Error: std::fmt::Debug> + Clone,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let heads = join_all((0..n).map(|_| service.clone().oneshot(request()))).await;
    for head in heads {
        read(head.unwrap()).await;
    }
}

/// A limit of `n`, its inner service and its handle.
fn limited(n: usize) -> (ConcurrencyLimit<Desk>, Desk, LimitHandle) {
    let layer = ConcurrencyLimitLayer::new(n);
    let desk = Desk::default();
    (layer.layer(desk.clone()), desk, layer.handle())
}

#[tokio::test(start_paused = true)]
async fn heads_that_are_collected_before_their_bodies_are_read_all_come() {
    let (layer, inner) = (ConcurrencyLimitLayer::new(4), Answers::default());
    let handle = layer.handle();
    let ((), elapsed) = timed(within_five_seconds(heads_then_bodies(layer.layer(inner.clone()), 8))).await;
    assert_eq!(elapsed, ms(10) + SECOND + ms(10), "the second four go when the first four have been unread for 1 s");
    assert_eq!(inner.most.load(Ordering::SeqCst), 4, "at most four calls await their head");
    assert_eq!((handle.in_use(), handle.lent(), handle.queued()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_permit_of_an_unread_body_is_lent_after_a_second_and_not_taken_back() {
    let (mut service, desk, handle) = limited(1);
    let mut calls = [(); 3].map(|()| spawn(service.call(request())));
    calls.iter_mut().for_each(|call| assert_pending!(call.poll()));
    desk.take().answer(Scripted::new([Step::Data("a"), Step::Data("b")]));
    let mut unread = assert_ready_ok!(calls[0].poll()).into_body();

    tokio::time::sleep(ms(999)).await;
    assert!(!calls[1].is_woken());
    assert_eq!((handle.in_use(), handle.lent()), (1, 0));
    tokio::time::sleep(ms(1)).await;
    assert!(calls[1].is_woken() && !calls[2].is_woken());
    assert_eq!((handle.in_use(), handle.lent()), (0, 1), "the next call is told, and has not come yet");
    assert_pending!(calls[1].poll());
    assert_eq!((desk.len(), handle.in_use(), handle.lent()), (1, 1, 1));

    // It is read to its end like any other, and gives back nothing but the loan.
    assert_eq!(unread.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    assert_eq!((handle.in_use(), handle.lent()), (1, 1));
    assert_eq!(unread.frame().await.unwrap().unwrap().into_data().unwrap(), "b");
    assert!(unread.frame().await.is_none());
    assert_eq!((handle.in_use(), handle.lent(), handle.queued()), (1, 0, 1));
    assert!(!calls[2].is_woken());
    assert_pending!(calls[2].poll());
    desk.take().empty();
    assert_ready_ok!(calls[1].poll());
    assert!(calls[2].is_woken());
}

#[tokio::test(start_paused = true)]
async fn a_lent_permit_whose_body_is_dropped_unread_gives_back_the_loan_alone() {
    let (mut service, desk, handle) = limited(1);
    let mut calls = [(); 3].map(|()| spawn(service.call(request())));
    calls.iter_mut().for_each(|call| assert_pending!(call.poll()));
    desk.take().answer(Scripted::new([Step::Data("a")]));
    let unread = assert_ready_ok!(calls[0].poll());
    tokio::time::sleep(SECOND).await;
    assert_pending!(calls[1].poll());
    drop(unread);
    assert_eq!((handle.in_use(), handle.lent(), handle.queued()), (1, 0, 1));
    assert_pending!(calls[2].poll());
    assert_eq!(desk.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_has_been_polled_once_keeps_its_permit_however_slow_its_reader() {
    for frames in [vec![Step::Data("a"), Step::Data("b")], vec![Step::Pending, Step::Data("b")]] {
        let (mut service, desk, handle) = limited(1);
        let mut first = spawn(service.call(request()));
        assert_pending!(first.poll());
        desk.take().answer(Scripted::new(frames));
        let mut slow = assert_ready_ok!(first.poll()).into_body();
        let mut second = spawn(service.call(request()));
        assert_pending!(second.poll());
        tokio::time::sleep(ms(900)).await;
        let _ = spawn(slow.frame()).poll();
        tokio::time::sleep(3_600 * SECOND).await;
        assert_pending!(second.poll());
        assert_eq!((handle.in_use(), handle.lent(), handle.queued()), (1, 0, 1));
        drop(slow);
        assert_pending!(second.poll());
        assert_eq!((desk.len(), handle.in_use()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_late_does_not_wait_another_second() {
    let (mut service, desk, handle) = limited(1);
    let mut first = spawn(service.call(request()));
    assert_pending!(first.poll());
    desk.take().answer(Scripted::new([Step::Data("a")]));
    let _unread = assert_ready_ok!(first.poll());
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!((handle.in_use(), handle.lent()), (1, 0), "nobody waits for it");
    let mut second = spawn(service.call(request()));
    assert_pending!(second.poll());
    assert_eq!((desk.len(), handle.in_use(), handle.lent()), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn no_more_is_lent_than_lets_the_next_call_go() {
    let (mut service, desk, handle) = limited(3);
    let mut unread = Vec::new();
    for _ in 0..3 {
        let mut call = spawn(service.call(request()));
        assert_pending!(call.poll());
        desk.take().answer(Scripted::new([Step::Data("a")]));
        unread.push(assert_ready_ok!(call.poll()));
    }
    tokio::time::sleep(2 * SECOND).await;
    // One call more needs one permit, and after the limit has shrunk to 2 two of those that are left.
    let mut fourth = spawn(service.call(request()));
    assert_pending!(fourth.poll());
    assert_eq!((handle.in_use(), handle.lent()), (3, 1));
    handle.resize(2);
    let mut fifth = spawn(service.call(request()));
    assert_pending!(fifth.poll());
    assert_eq!((handle.in_use(), handle.lent(), desk.len()), (2, 3, 2));
    // A limit that is paused, or too small for what is really on, is not helped by lending.
    drop((fourth, fifth, unread));
    assert_eq!((handle.in_use(), handle.lent()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_paused_limit_lends_nothing() {
    let (mut service, desk, handle) = limited(1);
    let mut first = spawn(service.call(request()));
    assert_pending!(first.poll());
    desk.take().answer(Scripted::new([Step::Data("a")]));
    let _unread = assert_ready_ok!(first.poll());
    handle.resize(0);
    let mut second = spawn(service.call(request()));
    assert_pending!(second.poll());
    tokio::time::sleep(60 * SECOND).await;
    assert_pending!(second.poll());
    assert_eq!((handle.in_use(), handle.lent(), handle.queued()), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_time_is_settable() {
    for after in [Duration::ZERO, ms(50), 30 * SECOND] {
        let layer = ConcurrencyLimitLayer::new(4).lend_unread_after(Some(after));
        let ((), elapsed) = timed(heads_then_bodies(layer.layer(Answers::default()), 8)).await;
        assert_eq!(elapsed, ms(20) + after);
    }
    // No time is too long for the clock.
    let layer = ConcurrencyLimitLayer::new(4).lend_unread_after(Some(Duration::MAX));
    let eight = heads_then_bodies(layer.layer(Answers::default()), 8);
    assert!(timeout(3_600 * SECOND, eight).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_each_key_lends_within_the_key() {
    let layer = ConcurrencyLimitLayer::new(1).per_key();
    let (service, handle) = (layer.layer(Answers::default()), layer.handle());
    let calls = (0..4).map(|n| service.clone().oneshot(request_with(QuotaKey::new(n % 2))));
    let (heads, elapsed) = timed(within_five_seconds(join_all(calls))).await;
    assert_eq!((elapsed, handle.lent(), handle.in_use()), (ms(1_020), 2, 2));
    for head in heads {
        read(head.unwrap()).await;
    }
    assert_eq!((handle.lent(), handle.in_use()), (0, 0));
}

/// Sixteen calls, of which the bodies are read in the loop, in order.
pub(crate) async fn read_in_order<S, B>(service: S)
where
    S: Service<Req, Response = Response<B>, Error: std::fmt::Debug> + Clone,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    // The first call is the last in the queue.
    let priority = |n| if n == 0 { Priority::Batch } else { Priority::Interactive };
    let calls = (0..16).map(|n| service.clone().oneshot(request_with(priority(n))));
    let mut heads = pin!(futures_util::stream::iter(calls).buffered(8));
    while let Some(head) = heads.next().await {
        read(head.unwrap()).await;
    }
}

/// Eight calls, with a follow-up call in the loop before the body is read.
pub(crate) async fn follow_up_before_reading<S, B>(service: S)
where
    S: Service<Req, Response = Response<B>, Error: std::fmt::Debug> + Clone,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let calls = (0..8).map(|_| service.clone().oneshot(request()));
    let mut heads = pin!(futures_util::stream::iter(calls).buffer_unordered(8));
    while let Some(head) = heads.next().await {
        read(service.clone().oneshot(request()).await.unwrap()).await;
        read(head.unwrap()).await;
    }
}

/// The loser of a `select!` is not polled while a further call is made, and the winner's body is not read.
pub(crate) async fn unpolled_sibling<S, B>(service: S)
where
    S: Service<Req, Response = Response<B>, Error: std::fmt::Debug> + Clone,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let mut winner = pin!(service.clone().oneshot(request()));
    let mut sibling = pin!(service.clone().oneshot(request()));
    let head = tokio::select! {
        biased;
        head = &mut winner => head.unwrap(),
        _ = &mut sibling => panic!("it goes second"),
    };
    read(service.clone().oneshot(request()).await.unwrap()).await;
    read(head).await;
    read(sibling.await.unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn loops_that_leave_heads_unread_end_with_the_limit() {
    for limit in [1, 2, 4] {
        let layer = ConcurrencyLimitLayer::new(limit);
        let service = || layer.layer(Answers::default());
        let handle = layer.handle();
        if limit == 4 {
            within_five_seconds(read_in_order(service())).await;
            within_five_seconds(follow_up_before_reading(service())).await;
        } else {
            timeout(60 * SECOND, read_in_order(service())).await.expect("hangs");
            timeout(60 * SECOND, follow_up_before_reading(service())).await.expect("hangs");
        }
        within_five_seconds(unpolled_sibling(service())).await;
        assert_eq!((handle.in_use(), handle.lent(), handle.queued()), (0, 0, 0), "limit {limit}");
    }
}
