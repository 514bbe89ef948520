//! Every way in which a permit comes back, and none in which it comes back twice or too early.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok};
use tower::{Layer, Service, ServiceExt};
use tower_429::{ConcurrencyLimit, ConcurrencyLimitLayer, LimitHandle, ReleaseAt, ResponseBody};

use crate::support_limit::{Boom, Desk, Door, Says, Scripted, Step, ms, request, slow};

fn limited(n: usize) -> (ConcurrencyLimit<Desk>, Desk, LimitHandle) {
    let layer = ConcurrencyLimitLayer::new(n);
    let desk = Desk::default();
    (layer.layer(desk.clone()), desk, layer.handle())
}

/// The response of a call that is alone, with this body.
async fn answered(body: Scripted) -> (ResponseBody<Scripted>, LimitHandle) {
    let (mut service, desk, handle) = limited(1);
    let mut call = spawn(service.call(request()));
    assert_pending!(call.poll());
    assert_eq!(handle.in_use(), 1);
    desk.take().answer(body);
    (assert_ready_ok!(call.poll()).into_body(), handle)
}

async fn frame(body: &mut ResponseBody<Scripted>) -> Option<Result<http_body::Frame<Bytes>, Boom>> {
    body.frame().await
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_at_the_end_of_the_stream() {
    let (mut body, handle) = answered(Scripted::new([Step::Data("a"), Step::Pending, Step::Data("b")])).await;
    for _ in 0..2 {
        assert!(frame(&mut body).await.unwrap().is_ok());
        assert_eq!(handle.in_use(), 1);
    }
    assert!(frame(&mut body).await.is_none());
    assert_eq!(handle.in_use(), 0);
    drop(body);
    assert_eq!(handle.in_use(), 0, "given back once");
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_with_the_last_byte_of_an_exact_length_without_another_poll() {
    let mut script = Scripted::new([Step::Data("a"), Step::Data("b")]).exact();
    script.no_last_poll = true;
    let (mut body, handle) = answered(script).await;
    assert!(frame(&mut body).await.unwrap().is_ok());
    assert_eq!(handle.in_use(), 1);
    assert!(frame(&mut body).await.unwrap().is_ok());
    assert_eq!(handle.in_use(), 0);
    assert!(body.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_at_the_head_when_there_is_no_body() {
    let (body, handle) = answered(Scripted::default().exact()).await;
    assert_eq!(handle.in_use(), 0, "HEAD, 204, or an empty body");
    assert!(body.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_with_the_trailers() {
    let (mut body, handle) = answered(Scripted::new([Step::Data("a"), Step::Trailers])).await;
    assert!(frame(&mut body).await.unwrap().is_ok());
    assert_eq!(handle.in_use(), 1);
    assert!(frame(&mut body).await.unwrap().unwrap().is_trailers());
    assert_eq!(handle.in_use(), 0, "nothing comes after trailers");
    assert!(frame(&mut body).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_when_the_body_fails() {
    let (mut body, handle) = answered(Scripted::new([Step::Data("a"), Step::Error, Step::Data("b")])).await;
    assert!(frame(&mut body).await.unwrap().is_ok());
    assert_eq!(frame(&mut body).await.unwrap().unwrap_err(), Boom);
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_when_the_body_is_dropped_early() {
    let (mut body, handle) = answered(Scripted::new([Step::Data("a"), Step::Data("b")])).await;
    assert!(frame(&mut body).await.unwrap().is_ok());
    assert_eq!(handle.in_use(), 1);
    drop(body);
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_is_dropped_before_its_permit_comes_back() {
    let (mut service, desk, handle) = limited(1);
    let (mut first, mut second) = (spawn(service.call(request())), spawn(service.call(request())));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    let alive = Arc::new(());
    let mut script = Scripted::new([Step::Data("a")]);
    script.alive = Some(alive.clone());
    desk.take().answer(script);
    let body = assert_ready_ok!(first.poll());
    // The second call is woken by the permit: when it is, the body of the first must be gone.
    let seen = Arc::new(std::sync::atomic::AtomicUsize::new(9));
    struct Look(Arc<()>, Arc<std::sync::atomic::AtomicUsize>);
    impl std::task::Wake for Look {
        fn wake(self: Arc<Self>) {
            self.1.store(Arc::strong_count(&self.0), std::sync::atomic::Ordering::SeqCst);
        }
    }
    let waker = Arc::new(Look(alive, seen.clone())).into();
    let mut second = Box::pin(second.into_inner());
    assert!(second.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    drop(body);
    assert_eq!(seen.load(std::sync::atomic::Ordering::SeqCst), 1, "only the test's own reference is left");
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_keeps_its_permit_if_permits_are_never_lent() {
    let layer = ConcurrencyLimitLayer::new(1).lend_unread_after(None);
    let (desk, handle) = (Desk::default(), layer.handle());
    let mut service = layer.layer(desk.clone());
    let mut first = spawn(service.call(request()));
    assert_pending!(first.poll());
    desk.take().answer(Scripted::new([Step::Data("a")]));
    let kept = assert_ready_ok!(first.poll());
    let mut second = spawn(service.call(request()));
    assert_pending!(second.poll());
    tokio::time::sleep(ms(3_600_000)).await;
    assert_pending!(second.poll());
    assert_eq!((handle.in_use(), handle.queued()), (1, 1));
    drop(kept);
    assert!(second.is_woken());
    assert_pending!(second.poll());
    assert_eq!(desk.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_when_the_inner_service_fails() {
    let (mut service, desk, handle) = limited(1);
    let mut call = spawn(service.call(request()));
    assert_pending!(call.poll());
    desk.take().fail();
    assert_eq!(assert_ready_err!(call.poll()), Boom);
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_when_a_call_is_dropped_while_it_runs() {
    let (mut service, desk, handle) = limited(1);
    let mut call = spawn(service.call(request()));
    assert_pending!(call.poll());
    assert_eq!((handle.in_use(), desk.len()), (1, 1));
    drop(call);
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_when_a_call_is_dropped_that_was_never_polled() {
    let (mut service, _, handle) = limited(1);
    let call = service.call(request());
    assert_eq!(handle.in_use(), 1, "admitted at the door");
    let queued = service.call(request());
    assert_eq!(handle.queued(), 0, "no place before the first poll");
    drop(queued);
    drop(call);
    assert_eq!((handle.in_use(), handle.queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_place_comes_back_when_a_call_is_dropped_in_the_queue() {
    let (mut service, desk, handle) = limited(1);
    let mut first = spawn(service.call(request()));
    assert_pending!(first.poll());
    let (mut second, mut third) = (spawn(service.call(request())), spawn(service.call(request())));
    assert_pending!(second.poll());
    assert_pending!(third.poll());
    drop(second);
    assert_eq!(handle.queued(), 1);
    desk.take().empty();
    assert_ready_ok!(first.poll());
    assert!(third.is_woken());
    assert_pending!(third.poll());
    assert_eq!((desk.len(), handle.in_use()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_when_its_turn_has_come_passes_the_turn_on() {
    let (mut service, desk, handle) = limited(1);
    let mut first = spawn(service.call(request()));
    assert_pending!(first.poll());
    let (mut second, mut third) = (spawn(service.call(request())), spawn(service.call(request())));
    assert_pending!(second.poll());
    assert_pending!(third.poll());
    desk.take().empty();
    assert_ready_ok!(first.poll());
    assert!(second.is_woken() && !third.is_woken());
    drop(second);
    assert!(third.is_woken());
    assert_pending!(third.poll());
    assert_eq!((desk.len(), handle.queued()), (1, 0));
}

type Running = <ConcurrencyLimit<Door<Desk>> as Service<crate::support_limit::Req>>::Future;

/// A call that has its permit and waits for the inner service to be ready.
fn readying() -> (tokio_test::task::Spawn<Running>, Door<Desk>, LimitHandle) {
    let layer = ConcurrencyLimitLayer::new(1);
    let (desk, handle) = (Desk::default(), layer.handle());
    let door = Door::new(desk.clone());
    let mut service = layer.layer(door.clone());
    assert_ready_ok!(spawn(service.ready()).poll());
    let mut first = spawn(service.call(request()));
    assert_pending!(first.poll());
    let mut second = spawn(service.call(request()));
    assert_pending!(second.poll());
    door.says(Says::Pending);
    desk.take().empty();
    assert_ready_ok!(first.poll());
    assert!(second.is_woken());
    assert_pending!(second.poll());
    assert_eq!((handle.in_use(), handle.queued(), door.readied()), (1, 0, 0));
    (second, door, handle)
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_when_a_call_is_dropped_while_the_inner_service_gets_ready() {
    let (call, _, handle) = readying();
    drop(call);
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_when_the_inner_service_cannot_get_ready() {
    let (mut call, door, handle) = readying();
    door.says(Says::Broken);
    assert!(call.is_woken());
    assert_eq!(assert_ready_err!(call.poll()), Boom);
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_on_however_long_the_inner_service_takes_to_get_ready() {
    let (mut call, door, handle) = readying();
    tokio::time::sleep(ms(60_000)).await;
    assert_pending!(call.poll());
    door.says(Says::Ready);
    assert_pending!(call.poll());
    assert_eq!((handle.in_use(), door.readied()), (1, 0), "called");
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_at_the_head_if_that_is_wanted() {
    let layer = ConcurrencyLimitLayer::new(1).release_at(ReleaseAt::Headers);
    let (desk, handle) = (Desk::default(), layer.handle());
    let mut service = layer.layer(desk.clone());
    let mut call = spawn(service.call(request()));
    assert_pending!(call.poll());
    desk.take().answer(Scripted::new([Step::Data("a")]));
    let response = assert_ready_ok!(call.poll());
    assert_eq!(handle.in_use(), 0);
    drop(response);
    assert_eq!(handle.in_use(), 0);
}

/// A call whose future is alive for as long as it says.
struct Probe {
    _alive: Arc<()>,
    succeeds: bool,
}

impl Future for Probe {
    type Output = Result<Response<Full<Bytes>>, Boom>;

    fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::task::Poll::Ready(if self.succeeds { Ok(Response::new(Full::from("body"))) } else { Err(Boom) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_calls_own_future_is_gone_before_its_permit_comes_back() {
    for (succeeds, release_at) in [(true, ReleaseAt::Headers), (false, ReleaseAt::BodyEnd), (false, ReleaseAt::Headers)]
    {
        let alive = Arc::new(());
        let token = alive.clone();
        let layer = ConcurrencyLimitLayer::new(1).release_at(release_at);
        let inner = tower::service_fn(move |_: Request<()>| Probe { _alive: token.clone(), succeeds });
        let mut service = layer.layer(inner);
        let before = Arc::strong_count(&alive);
        let mut first = spawn(service.call(Request::new(())));
        let mut second = Box::pin(service.call(Request::new(())));
        struct Look(Arc<()>, Arc<std::sync::Mutex<Option<usize>>>);
        impl std::task::Wake for Look {
            fn wake(self: Arc<Self>) {
                *self.1.lock().unwrap() = Some(Arc::strong_count(&self.0));
            }
        }
        let seen = Arc::new(std::sync::Mutex::new(None));
        let waker = Arc::new(Look(alive.clone(), seen.clone())).into();
        assert!(second.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        let waiting = Arc::strong_count(&alive);
        let _ = assert_ready!(first.poll());
        // The first call's clone of the token has gone with its future; its service's own clones stay.
        assert_eq!(seen.lock().unwrap().unwrap(), waiting - 1, "{succeeds} {release_at:?} {before}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_answers_at_once_never_queues() {
    let layer = ConcurrencyLimitLayer::new(1);
    let mut service = layer.layer(slow(ms(0)));
    for _ in 0..1_000 {
        let call = service.ready().await.unwrap().call(request());
        call.await.unwrap().into_body().collect().await.unwrap();
    }
    assert_eq!(layer.handle().in_use(), 0);
}
