//! The contract of a tower service: readiness, cancellation, what is held while waiting, and what may be sent twice.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt};
use tower_429::{PacingConfig, QuotaKey, RetryOn, RetryOn429, RetryOn429Layer, StopReason};
use tower_test::mock::{self, Mock};

use crate::support_retry::*;

/// A service that must be made ready before each call, whose clones are not ready, and that counts who is.
struct Readied {
    inner: Server,
    ready: Option<Alive>,
    alive: Arc<AtomicUsize>,
    polls: Arc<AtomicUsize>,
    /// Polls until it is ready.
    slow: usize,
    delay: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Readied {
    fn new(inner: Server, slow: usize) -> Self {
        Self { inner, ready: None, alive: Arc::default(), polls: Arc::default(), slow, delay: None }
    }
}

impl Clone for Readied {
    fn clone(&self) -> Self {
        let (alive, polls) = (Arc::clone(&self.alive), Arc::clone(&self.polls));
        Self { inner: self.inner.clone(), ready: None, alive, polls, slow: self.slow, delay: None }
    }
}

impl Service<Req> for Readied {
    type Response = Response<Steps>;
    type Error = Broken;
    type Future = <Server as Service<Req>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        if self.ready.is_none() {
            if self.slow > 0 {
                let delay = self.delay.get_or_insert_with(|| Box::pin(tokio::time::sleep(ms(self.slow as u64))));
                std::task::ready!(delay.as_mut().poll(cx));
            }
            self.ready = Some(Alive::of(&self.alive));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        self.ready.take().expect("called without being made ready");
        self.delay = None;
        self.inner.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn the_instance_that_was_made_ready_is_the_one_called_on_every_attempt() {
    for slow in [0, 5] {
        let server = Server::saying([Reply::bare(), Reply::status(503, ""), Reply::bare().header("retry-after", "1")]);
        let probe = Readied::new(server.clone(), slow);
        let answer = layer().layer(probe.clone()).oneshot(request()).await.unwrap();
        assert_eq!((answer.status().as_u16(), server.count()), (200, 4));
        assert!(probe.polls.load(Ordering::SeqCst) >= 4, "made ready anew for each");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_of_an_attempt_is_alive_while_a_call_waits() {
    let bodies = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&bodies);
    // A cooldown of the key, a call's own wait, and a wait of another class.
    let server = Server::new(move |n, _| {
        match n {
            0 => Reply::bare().header("retry-after", "10"),
            1 => Reply::status(429, AT_ONCE).header("retry-after", "10"),
            2 => Reply::status(500, "").header("retry-after", "10"),
            _ => Reply::ok(),
        }
        .counted(&count)
    });
    let probe = Readied::new(server.clone(), 0);
    let layer = layer().retry_on(RetryOn::openai_sdk());
    let mut call = Box::pin(layer.layer(probe.clone()).oneshot(request()));
    for second in 1.. {
        if tokio::time::timeout(ms(500), &mut call).await.is_ok() {
            break;
        }
        let alive = [&bodies, &probe.alive, &server.open].map(|count| count.load(Ordering::SeqCst));
        assert_eq!(alive, [0, 0, 0], "bodies, readied instances, calls after {second} half seconds");
        let snapshot = layer.quotas().snapshot(key()).unwrap();
        assert_eq!(snapshot.in_flight, 0);
    }
    assert_eq!(server.count(), 4);
    assert!(server.times()[3] >= secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_at_the_door_gives_its_readied_instance_up() {
    let server = Server::saying([Reply::bare().header("retry-after", "10")]);
    let probe = Readied::new(server.clone(), 0);
    let layer = layer();
    let first = tokio::spawn(layer.layer(probe.clone()).oneshot(with(tower_429::NoRetry)));
    assert_eq!(first.await.unwrap().unwrap().status(), 429);
    let mut service = layer.layer(probe.clone());
    service.ready().await.unwrap();
    assert_eq!(probe.alive.load(Ordering::SeqCst), 1);
    let call = service.call(request());
    assert_eq!(probe.alive.load(Ordering::SeqCst), 0);
    drop(call);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_must_wait_anew_once_its_service_is_ready_gives_that_up_too() {
    // The second call is admitted, and its service takes 100 ms to be ready; meanwhile the first is throttled.
    let server = Server::saying([Reply::bare().header("retry-after", "10").after(ms(50))]);
    let probe = Readied::new(server.clone(), 100);
    let layer = layer().pacing(PacingConfig::new().initial_window(2));
    let stack = layer.layer(probe.clone());
    let (mut one, mut two, mut three) = (stack.clone(), stack.clone(), stack.clone());
    one.ready().await.unwrap();
    two.ready().await.unwrap();
    three.ready().await.unwrap();
    // Two are out, so that the third waits at the door, and is admitted when one of them is dropped.
    let first = tokio::spawn(one.call(with(tower_429::NoRetry)));
    let second = two.call(request());
    let third = tokio::spawn(three.call(request()));
    tokio::time::sleep(ms(1)).await;
    drop(second);
    tokio::time::sleep(ms(1_000)).await;
    assert_eq!(first.await.unwrap().unwrap().status(), 429);
    assert_eq!(probe.alive.load(Ordering::SeqCst), 0, "nothing is kept ready during the cooldown");
    assert_eq!(third.await.unwrap().unwrap().status(), 200);
    assert!(server.times().last().unwrap() >= &secs(10));
}

#[tokio::test(start_paused = true)]
async fn readiness_is_polled_again_before_each_attempt_and_its_error_ends_the_call() {
    type Inner = Mock<Req, Response<Steps>>;
    let throttle = || Response::builder().status(429).body(Steps::text(BARE)).unwrap();
    let (inner, mut handle): (Inner, _) = mock::pair();
    handle.allow(1);
    let mut service = layer().layer(inner);
    let mut ready = task::spawn(service.ready());
    assert_ready_ok!(ready.poll());
    drop(ready);
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    assert_ready!(task::spawn(handle.next_request()).poll()).unwrap().1.send_response(throttle());
    assert_pending!(call.poll());
    tokio::time::sleep(secs(1)).await;
    assert_pending!(call.poll());
    assert_pending!(task::spawn(handle.next_request()).poll(), "its turn has come, but the service is not ready");
    handle.allow(1);
    assert_pending!(call.poll());
    assert_ready!(task::spawn(handle.next_request()).poll()).unwrap().1.send_response(throttle());
    assert_pending!(call.poll());
    handle.send_error(Broken("closed"));
    tokio::time::sleep(secs(2)).await;
    assert_eq!(assert_ready_err!(call.poll()).to_string(), "closed");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_in_any_state_frees_its_permit_its_place_and_its_timer() {
    let stalled = || Reply::body(429, Steps::new([Step::Stall]));
    type Script = fn(usize) -> Reply;
    let states: [(&str, Script, usize); 7] = [
        ("on the wire", |_| Reply::ok().after(secs(1_000)), 0),
        ("in the cooldown", |_| Reply::bare().header("retry-after", "100"), 0),
        (
            "in its own wait",
            |n| {
                if n == 0 {
                    Reply::ok().after(secs(10))
                } else {
                    Reply::status(429, AT_ONCE).header("retry-after", "100")
                }
            },
            0,
        ),
        ("in the wait of another class", |_| Reply::status(500, "").header("retry-after", "100"), 0),
        ("reading a 429", |_| Reply::body(429, Steps::new([Step::Stall])), 0),
        ("getting ready again", |_| Reply::status(503, ""), 60_000),
        ("with a body that is not read", |_| Reply::body(200, Steps::new([Step::Stall])), 0),
    ];
    drop(stalled());
    for (what, script, slow) in states {
        for after in [ms(0), ms(1), ms(600), ms(1_500)] {
            let server = Server::new(move |n, _| script(n));
            let layer = layer().retry_on(RetryOn::openai_sdk());
            let mut stack = layer.layer(Readied::new(server.clone(), slow));
            stack.ready().await.unwrap();
            let first = (what == "in its own wait").then(|| tokio::spawn(client(&layer, &server).oneshot(request())));
            tokio::task::yield_now().await;
            let mut call = Box::pin(stack.call(request()));
            let answer = tokio::time::timeout(after, &mut call).await;
            drop(call);
            drop(answer);
            drop(stack);
            if let Some(first) = first {
                first.await.unwrap().unwrap().into_body().collect().await.unwrap();
            }
            let snapshot = layer.quotas().snapshot(key()).unwrap();
            assert_eq!((snapshot.in_flight, snapshot.queued), (0, 0), "{what} after {after:?}");
            assert_eq!(server.open.load(Ordering::SeqCst), 0, "{what} after {after:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_in_the_queue_lets_the_next_one_go() {
    let server = Server::new(|_, _| Reply::ok().after(ms(100)));
    let layer = layer().pacing(PacingConfig::new().initial_window(1));
    let client = client(&layer, &server);
    let first = tokio::spawn(client.clone().oneshot(request()));
    tokio::task::yield_now().await;
    let dropped = tokio::spawn(client.clone().oneshot(request()));
    let last = tokio::spawn(client.clone().oneshot(request()));
    tokio::time::sleep(ms(10)).await;
    assert_eq!(layer.quotas().snapshot(key()).unwrap().queued, 2);
    dropped.abort();
    assert!(dropped.await.is_err());
    assert_eq!(layer.quotas().snapshot(key()).unwrap().queued, 1);
    drop(first.await.unwrap().unwrap());
    last.await.unwrap().unwrap();
    assert_eq!(server.times(), [ms(0), ms(100)]);
}

#[tokio::test(start_paused = true)]
async fn eight_clones_that_wait_in_one_cooldown_all_wake() {
    let server = Server::saying([Reply::bare().header("retry-after", "5")]);
    let client = client(&layer(), &server);
    assert_eq!(send(&client, with(tower_429::NoRetry)).await.status(), 429);
    let outcomes = send_all(&client, (0..8).map(|_| request())).await;
    assert!(outcomes.iter().all(|outcome| outcome.status == 200 && outcome.head >= secs(5)));
    assert!(outcomes.iter().all(|outcome| outcome.head <= secs(8)), "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_429_counts_as_a_failure_for_every_controller_although_the_service_says_ok() {
    // The budget of retries is spent, and 429s do not fill it; nor do they open a closed key or widen the window.
    let server = Server::new(|_, _| Reply::bare().header("retry-after", "1000"));
    let layer = layer();
    let client = client(&layer, &server);
    for _ in 0..500 {
        let answer = send(&client, request()).await;
        assert_eq!(answer.status(), 429);
        tokio::time::advance(secs(1)).await;
    }
    assert_eq!(server.times().len(), 3, "closed, and probed after 120 and 360 s");
    assert_eq!(layer.quotas().snapshot(key()).unwrap().window, 16);

    let server =
        Server::new(|_, seen| Reply::status(seen.parts.headers["x-status"].to_str().unwrap().parse().unwrap(), ""));
    let client = self::client(&self::layer().retry_on(RetryOn::openai_sdk()).max_other_retries(1), &server);
    let answered = |n: usize, status: &'static str| {
        let mut request = with(QuotaKey::new(n));
        request.extensions_mut().insert(tower_429::Deadline::within(secs(60)));
        request.headers_mut().insert("x-status", status.parse().unwrap());
        request
    };
    send_all(&client, (0..150).map(|n| answered(n, "500"))).await;
    assert_eq!(server.count(), 250, "the budget of 100 retries is spent");
    for n in 150..1_150 {
        let mut throttled = answered(n, "429");
        throttled.extensions_mut().insert(tower_429::NoRetry);
        send(&client, throttled).await;
    }
    let stopped = info(&send(&client, answered(2_000, "500")).await).unwrap().stopped;
    assert_eq!(stopped, Some(StopReason::BudgetSpent), "a thousand throttles add nothing to it");
    send_all(&client, (0..5).map(|n| answered(n, "200"))).await;
    assert_eq!(info(&send(&client, answered(2_001, "500")).await).unwrap().stopped, Some(StopReason::RetriesSpent));
}

#[tokio::test(start_paused = true)]
async fn services_made_for_each_request_share_one_limit() {
    let server = Server::new(|_, _| Reply::ok().after(ms(100)));
    let layer = layer().pacing(PacingConfig::new().initial_window(1));
    let calls: Vec<_> = (0..3).map(|_| tokio::spawn(layer.layer(server.clone()).oneshot(request()))).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.times(), [ms(0), ms(100), ms(100)], "the window grows by one with the first answer");
}

#[test]
fn composed_services_are_clone_send_and_sync_and_their_futures_send() {
    fn is<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn sends<T: Send>(_: &T) {}
    type Body = Full<Bytes>;
    #[derive(Clone)]
    struct Plain;
    impl Service<Request<Body>> for Plain {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::ready(Ok(Response::default()))
        }
    }
    let mut stack = tower::ServiceBuilder::new()
        .layer(RetryOn429Layer::new())
        .layer(tower_429::ConcurrencyLimitLayer::new(2))
        .service(Plain);
    is(&stack);
    is(&RetryOn429Layer::new());
    let future = stack.call(request());
    sends(&future);
    let Ok(_) = futures_util::FutureExt::now_or_never(future).unwrap(); // irrefutable: it cannot fail
    fn named(_: &RetryOn429<tower_429::ConcurrencyLimit<Plain>>) {}
    named(&stack);
}
