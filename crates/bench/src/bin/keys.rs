//! What a key costs that is called for the first time, with a million keys seen and eight threads: wall time and processor
//! time (on Linux), and the number of keys that are remembered at the end.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{Layer, Service, service_fn};
use tower_429::{ConcurrencyLimitLayer, QuotaKey, RetryOn429Layer};

const THREADS: u64 = 8;
const KEYS: u64 = 1_000_000;

type Body = Full<Bytes>;

fn answer(_: Request<Body>) -> Ready<Result<Response<Body>, Infallible>> {
    ready(Ok(Response::new(Body::default())))
}

/// What a call costs, in nanoseconds.
#[derive(Clone, Copy)]
struct Nanos {
    wall: f64,
    processor: f64,
}

/// The processor time of this process so far, in nanoseconds; 0 where it cannot be read.
fn processor() -> f64 {
    const TICK: f64 = 1e9 / 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    // The 14th and the 15th field of proc(5); the first two have been cut off.
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * TICK
}

/// Each thread calls keys of a range of its own, or one key again and again.
fn nanos<S>(service: &S, first: u64, new: bool) -> Nanos
where
    S: Service<Request<Body>> + Clone + Send + Sync,
{
    let next = AtomicU64::new(first);
    let (start, used) = (Instant::now(), processor());
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let (mut service, next) = (service.clone(), &next);
            threads.spawn(move || {
                for _ in 0..KEYS / THREADS {
                    let key = if new { next.fetch_add(1, Ordering::Relaxed) } else { thread };
                    let mut request = Request::new(Body::default());
                    request.extensions_mut().insert(QuotaKey::new((key, new)));
                    let mut call = std::pin::pin!(service.call(request));
                    let done = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    assert!(done.is_ready(), "nothing is in the way");
                }
            });
        }
    });
    let calls = KEYS as f64;
    Nanos { wall: start.elapsed().as_nanos() as f64 / calls, processor: (processor() - used) / calls }
}

fn report<S>(name: &str, service: &S)
where
    S: Service<Request<Body>> + Clone + Send + Sync,
{
    nanos(service, 0, true); // a million keys are seen
    let known = nanos(service, 0, false);
    let new = nanos(service, KEYS, true);
    for (what, new, known) in [("wall", new.wall, known.wall), ("processor", new.processor, known.processor)] {
        println!(
            "{name}, ns of {what} time a call: {new:.0} of a new key, {known:.0} of a known one, {:.0} more",
            new - known
        );
    }
}

fn main() {
    let retry = RetryOn429Layer::new();
    report("RetryOn429", &retry.layer(service_fn(answer)));
    println!("{} keys are remembered", retry.quotas().len());
    report("ConcurrencyLimit per key", &ConcurrencyLimitLayer::new(1).per_key().layer(service_fn(answer)));
}
