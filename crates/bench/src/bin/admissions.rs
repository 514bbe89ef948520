//! A million admissions to one key from eight threads: neither layer ever has more in flight than it allows.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_429::{ConcurrencyLimitLayer, QuotaKey, RetryOn429Layer};

const THREADS: usize = 8;
/// Calls of each thread that run at the same time.
const TASKS: usize = 2;
const ADMISSIONS: usize = 1_000_000;
const AT_ONCE: usize = 5;

type Body = Full<Bytes>;

fn request() -> Request<Body> {
    let mut request = Request::new(Body::default());
    request.extensions_mut().insert(QuotaKey::new("one key"));
    request
}

fn main() {
    let (retry, limit) = (RetryOn429Layer::new(), ConcurrencyLimitLayer::new(AT_ONCE).per_key());
    let (running, most, served) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let server = {
        let (running, most, served) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&served));
        service_fn(move |_: Request<Body>| {
            let (running, served) = (Arc::clone(&running), Arc::clone(&served));
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            async move {
                tokio::task::yield_now().await; // so that calls meet
                running.fetch_sub(1, Ordering::SeqCst);
                served.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(Response::new(Body::default()))
            }
        })
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let stack = ServiceBuilder::new().layer(retry.clone()).layer(limit.clone()).service(server.clone());
            let quotas = retry.quotas();
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                runtime.block_on(async {
                    let calls = (0..TASKS).map(|_| async {
                        for _ in 0..ADMISSIONS / THREADS / TASKS {
                            assert_eq!(stack.clone().oneshot(request()).await.unwrap().status(), 200);
                            let snapshot = quotas.snapshot(QuotaKey::new("one key")).unwrap();
                            assert!(snapshot.in_flight <= snapshot.window, "{snapshot:?}");
                        }
                    });
                    futures_util::future::join_all(calls).await;
                });
            });
        }
    });
    let (most, served) = (most.load(Ordering::SeqCst), served.load(Ordering::SeqCst));
    println!("{served} admissions in {:?}, at most {most} of {AT_ONCE} at once", began.elapsed());
    assert_eq!(served, ADMISSIONS);
    assert!(most <= AT_ONCE);
    let snapshot = retry.quotas().snapshot(QuotaKey::new("one key")).unwrap();
    assert_eq!((snapshot.in_flight, snapshot.queued), (0, 0));
}
