//! What a key costs that is called for the first time, with a million keys seen and eight threads: wall time, and the
//! number of keys that are remembered at the end.

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

/// Nanoseconds of wall time a call: each thread calls keys of a range of its own, or one key again and again.
fn nanos<S>(service: &S, first: u64, new: bool) -> f64
where
    S: Service<Request<Body>> + Clone + Send + Sync,
{
    let next = AtomicU64::new(first);
    let start = Instant::now();
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
    start.elapsed().as_nanos() as f64 / KEYS as f64
}

fn report<S>(name: &str, service: &S)
where
    S: Service<Request<Body>> + Clone + Send + Sync,
{
    nanos(service, 0, true); // a million keys are seen
    let known = nanos(service, 0, false);
    let new = nanos(service, KEYS, true);
    println!("{name}: {new:.0} ns a call of a new key, {known:.0} ns a call of a known key, {:.0} more", new - known);
}

fn main() {
    let retry = RetryOn429Layer::new();
    report("RetryOn429", &retry.layer(service_fn(answer)));
    println!("{} keys are remembered", retry.quotas().len());
    report("ConcurrencyLimit per key", &ConcurrencyLimitLayer::new(1).per_key().layer(service_fn(answer)));
}
