//! The waiting queue under load: what letting one in and losing one costs, and how many are woken.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::time::Instant;
use tower::{Layer, Service};
use tower_429::ConcurrencyLimitLayer;

use super::call::Server;
use super::measure::median;

/// What was found with so many waiters.
#[derive(Debug, Clone, Copy)]
pub struct Costs {
    /// Calls in the queue at the beginning.
    pub waiters: usize,
    /// Nanoseconds from the end of a call to the head of the next one's answer, the inner call included.
    pub grant: f64,
    /// Nanoseconds that the drop of a waiting call takes.
    pub cancel: f64,
    /// Wake-ups for each permit that became free.
    pub wakes: f64,
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Fills the queue behind a limit of one, lets some in, one after another, and takes some away.
pub fn costs(waiters: usize) -> Costs {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _guard = runtime.enter();
    let repeat = if waiters < 1_000 { 101 } else { 5 };
    let runs: Vec<Costs> = (0..repeat).map(|_| once(waiters)).collect();
    let of = |field: fn(&Costs) -> f64| median(&runs.iter().map(field).collect::<Vec<_>>());
    Costs { waiters, grant: of(|run| run.grant), cancel: of(|run| run.cancel), wakes: of(|run| run.wakes) }
}

fn once(waiters: usize) -> Costs {
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    let mut service = ConcurrencyLimitLayer::new(1).layer(Server::new(1));
    let mut send = || Box::pin(service.call(Request::new(Full::<Bytes>::default())));
    let Poll::Ready(Ok(first)) = send().as_mut().poll(&mut cx) else { panic!("one fits") };
    let mut inside = Some(first);
    let mut queue: Vec<_> = (0..waiters).map(|_| Some(send())).collect();
    for future in queue.iter_mut().flatten() {
        assert!(future.as_mut().poll(&mut cx).is_pending(), "no more than one fits");
    }

    let few = (waiters / 2).min(1_000);
    let start = Instant::now();
    for future in &mut queue[..few] {
        drop(inside.take());
        let Some(Poll::Ready(Ok(next))) = future.take().map(|mut future| future.as_mut().poll(&mut cx)) else {
            panic!("the first in the queue is the next")
        };
        inside = Some(next);
    }
    let grant = start.elapsed().as_nanos() as f64 / few as f64;
    let wakes = count.0.load(Ordering::Relaxed) as f64 / few as f64;

    // Spread over the whole queue.
    let rest = waiters - few;
    let gone = (rest / 2).clamp(1, 1_000);
    let start = Instant::now();
    for turn in 0..gone {
        drop(queue[few + turn * (rest / gone)].take());
    }
    let cancel = start.elapsed().as_nanos() as f64 / gone as f64;
    Costs { waiters, grant, cancel, wakes }
}
