//! What a call holds, when it gives it back, and in which order: a readied instance first, then the permit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use http::Response;
use http_body_util::BodyExt;
use tower::{Layer, Service};
use tower_429::{PacingConfig, Quotas, RetryOn429Layer};

use crate::support_retry::*;

/// How a service gets ready.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Ready,
    Waits,
    Fails,
    Panics,
}

/// Its readied instance holds a permit, which notes when it goes how many calls its key has in flight.
struct Moody {
    inner: Server,
    mood: Arc<Mutex<Mood>>,
    quotas: Quotas,
    noted: Arc<Mutex<Vec<u32>>>,
    permit: Option<Permit>,
}

struct Permit {
    quotas: Quotas,
    noted: Arc<Mutex<Vec<u32>>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.noted.lock().unwrap().push(in_flight(&self.quotas));
    }
}

impl Moody {
    fn new(layer: &RetryOn429Layer, inner: Server) -> Self {
        let mood = Arc::new(Mutex::new(Mood::Ready));
        Self { inner, mood, quotas: layer.quotas(), noted: Arc::default(), permit: None }
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }
}

impl Clone for Moody {
    fn clone(&self) -> Self {
        let (inner, mood, quotas) = (self.inner.clone(), Arc::clone(&self.mood), self.quotas.clone());
        Self { inner, mood, quotas, noted: Arc::clone(&self.noted), permit: None }
    }
}

impl Service<Req> for Moody {
    type Response = Response<Steps>;
    type Error = Broken;
    type Future = <Server as Service<Req>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self.mood() {
            Mood::Waits => return Poll::Pending,
            Mood::Fails => return Poll::Ready(Err(Broken("not ready"))),
            Mood::Ready | Mood::Panics => {}
        }
        self.permit = Some(Permit { quotas: self.quotas.clone(), noted: Arc::clone(&self.noted) });
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        assert_ne!(self.mood(), Mood::Panics, "the inner service panics");
        self.inner.call(request)
    }
}

fn in_flight(quotas: &Quotas) -> u32 {
    quotas.snapshot(key()).map_or(0, |key| key.in_flight)
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_service_fails_to_get_ready_gives_its_permit_back_with_its_error() {
    let layer = layer().pacing(PacingConfig::new().initial_window(1));
    let moody = Moody::new(&layer, Server::saying([Reply::ok().after(ms(100))]));
    let mut service = layer.layer(moody.clone());
    let mut first = Box::pin(service.call(request()));
    let mut second = Box::pin(service.call(request()));
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(first.as_mut().poll(cx).is_pending() && second.as_mut().poll(cx).is_pending());
    *moody.mood.lock().unwrap() = Mood::Fails;
    drop(first.as_mut().await.unwrap().into_body().collect().await);
    assert!(second.as_mut().await.is_err());
    assert_eq!(in_flight(&layer.quotas()), 0, "its future is done, though not dropped yet");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_cooldown_stops_while_its_service_gets_ready_lets_go_of_the_service_first() {
    let layer = layer().pacing(PacingConfig::new().initial_window(2)).max_retries(0);
    let replies = [Reply::ok().after(ms(10)), Reply::bare().header("retry-after", "5").after(ms(100))];
    let moody = Moody::new(&layer, Server::saying(replies));
    let mut service = layer.layer(moody.clone());
    let [mut first, mut second, mut third] = [(); 3].map(|()| Box::pin(service.call(request())));
    let cx = &mut Context::from_waker(Waker::noop());
    for call in [&mut first, &mut second, &mut third] {
        assert!(call.as_mut().poll(cx).is_pending());
    }
    *moody.mood.lock().unwrap() = Mood::Waits;
    drop(first.as_mut().await.unwrap());
    assert!(third.as_mut().poll(cx).is_pending(), "admitted, and not ready");
    assert_eq!(in_flight(&layer.quotas()), 2);
    drop(second.as_mut().await.unwrap());
    *moody.mood.lock().unwrap() = Mood::Ready;
    moody.noted.lock().unwrap().clear();
    assert!(third.as_mut().poll(cx).is_pending(), "a cooldown has begun");
    assert_eq!(*moody.noted.lock().unwrap(), [1], "the readied instance went while the permit was still taken");
    assert_eq!(in_flight(&layer.quotas()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_into_which_its_service_panics_lets_go_of_the_service_first() {
    let layer = layer();
    let moody = Moody::new(&layer, Server::saying([]));
    let mut service = layer.layer(moody.clone());
    *moody.mood.lock().unwrap() = Mood::Panics;
    assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
    assert!(catch_unwind(AssertUnwindSafe(|| drop(service.call(request())))).is_err());
    assert_eq!(*moody.noted.lock().unwrap(), [1], "the readied instance went while the permit was still taken");
    assert_eq!(in_flight(&layer.quotas()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_printed_shows_nothing_of_the_answer() {
    let body = Steps::new([Step::Data("data: {\"secret".into()), Step::Stall]);
    let server = Server::saying([Reply::body(200, body).header("content-type", "text/event-stream")]);
    let mut answer = send(&client(&layer(), &server), request()).await;
    let _ = answer.body_mut().frame().await;
    let printed = format!("{:?}", answer.body());
    assert!(printed.contains("permit") && !printed.contains("secret"), "{printed}");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_costs_its_call_one_permit_and_nobody_else_theirs() {
    let throttled = [(NO_QUOTA, "1"), (BARE, "7200")];
    for (body, retry_after) in throttled {
        let layer = layer().on_event(|_, _| panic!("a bug of the listener's"));
        let replies = [Reply::ok().after(secs(9)), Reply::status(429, body).header("retry-after", retry_after)];
        let client = client(&layer, &Server::saying(replies));
        let calls = [(); 2].map(|()| {
            let client = client.clone();
            tokio::spawn(async move { send(&client, request()).await.into_body().collect().await.unwrap() })
        });
        tokio::time::sleep(secs(1)).await;
        assert!(calls[1].is_finished());
        assert_eq!(in_flight(&layer.quotas()), 1, "{body}");
        let [slow, throttled] = calls;
        assert!(throttled.await.unwrap_err().is_panic());
        drop(slow.await);
        assert_eq!(in_flight(&layer.quotas()), 0);
    }
}
