//! 100,000 calls that wait: what each costs the queue in memory, time and wake-ups.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service};
use tower_429::{ConcurrencyLimitLayer, LimitHandle, PacingConfig, RetryOn429Layer};

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

type Call = Pin<Box<dyn Future<Output = ()>>>;

/// A service whose calls take a second.
fn inner()
-> impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = std::convert::Infallible> + Clone {
    tower::service_fn(|_: Request<Full<Bytes>>| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(Response::new(Full::default()))
    })
}

/// `n` calls that were polled once by wakers of their own, behind one that runs; and the bytes that this took of the
/// queue alone.
struct Crowd {
    running: Call,
    waiting: Vec<Call>,
    wakes: Vec<Arc<Wakes>>,
    handle: LimitHandle,
    bytes: usize,
}

impl Crowd {
    fn new(n: usize) -> Self {
        let layer = ConcurrencyLimitLayer::new(1);
        let mut service = layer.layer(inner());
        let mut call = || -> Call {
            let call = service.call(Request::new(Full::default()));
            Box::pin(async { drop(call.await.unwrap().into_body().collect().await) })
        };
        let mut running = call();
        assert!(running.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let mut waiting: Vec<_> = (0..n).map(|_| call()).collect();
        let wakes: Vec<_> = (0..n).map(|_| Arc::new(Wakes::default())).collect();
        let wakers: Vec<Waker> = wakes.iter().map(|wakes| wakes.clone().into()).collect();
        let taken = allocation_counter::measure(|| {
            for (call, waker) in waiting.iter_mut().zip(&wakers) {
                assert!(call.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
            }
        });
        assert_eq!(layer.handle().queued(), n);
        let bytes = usize::try_from(taken.bytes_current).unwrap();
        Self { running, waiting, wakes, handle: layer.handle(), bytes }
    }

    fn woken(&self) -> usize {
        self.wakes.iter().map(|wakes| wakes.0.load(Ordering::SeqCst)).sum()
    }

    /// Ends the call that runs, then each that is called, `n` times: the real time that each took.
    async fn serve(&mut self, n: usize) -> Duration {
        let mut spent = Duration::ZERO;
        for at in 0..n {
            tokio::time::advance(Duration::from_secs(1)).await;
            let start = clock();
            assert!(self.running.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
            assert_eq!(self.wakes[at].0.load(Ordering::SeqCst), 1, "called, once");
            assert!(self.waiting[at].as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            spent += start.elapsed();
            self.running = std::mem::replace(&mut self.waiting[at], Box::pin(std::future::pending()));
        }
        spent / n as u32
    }
}

#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real time is what is measured")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_waiters_cost_little_memory_logarithmic_time_and_one_wake_up_a_permit() {
    let mut times = Vec::new();
    for n in [10_000, 100_000] {
        let mut crowd = Crowd::new(n);
        let each = crowd.bytes / n;
        println!("{n} waiters: {each} bytes each in the queue");
        assert!(each <= 200, "{each} bytes");

        assert_eq!(crowd.woken(), 0);
        let grant = crowd.serve(1_000).await;
        assert_eq!(crowd.woken(), 1_000, "one wake-up a permit");
        assert_eq!(crowd.handle.in_use(), 1);

        // From the middle on, so that neither end of the queue is hit.
        let middle = crowd.waiting.len() / 2;
        let start = clock();
        crowd.waiting.drain(middle..middle + 1_000);
        let cancel = start.elapsed() / 1_000;
        println!("{n} waiters: {grant:?} a grant, {cancel:?} a cancel, the calls themselves included");
        times.push(grant.max(cancel));

        let left = allocation_counter::measure(|| crowd.waiting.clear());
        let freed = usize::try_from(-left.bytes_current).unwrap();
        assert!(freed > crowd.bytes / 2, "nothing stays: {freed} of {}", crowd.bytes);
        assert_eq!(crowd.handle.queued(), 0);
        assert_eq!(crowd.woken(), 1_000, "nobody is woken by those that leave");
    }
    // Ten times as many: twice the time is cache, ten times would be a walk through the queue.
    assert!(times[1] < times[0] * 5 + Duration::from_micros(20), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_at_the_controller_costs_no_more() {
    // The controller's queue carries what a call asks for, too.
    let mut client = RetryOn429Layer::new().pacing(PacingConfig::new().initial_window(1)).layer(inner());
    let mut calls: Vec<Call> = (0..10_000)
        .map(|_| {
            let call = client.call(Request::new(Full::default()));
            Box::pin(async { drop(call.await) }) as Call
        })
        .collect();
    let wakes: Waker = Arc::new(Wakes::default()).into();
    let taken = allocation_counter::measure(|| {
        for call in &mut calls {
            assert!(call.as_mut().poll(&mut Context::from_waker(&wakes)).is_pending());
        }
    });
    let each = usize::try_from(taken.bytes_current).unwrap() / calls.len();
    println!("10000 waiters at the controller: {each} bytes each in the queue");
    assert!(each <= 200, "{each} bytes");
}
