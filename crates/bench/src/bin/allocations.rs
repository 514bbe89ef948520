//! Counts allocations and bytes for the benchmark `overhead`, a line each: what was counted, a tab, and how much.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, Service};
use tower_429::{ConcurrencyLimitLayer, QuotaKey, RetryOn429Layer};
use tower_429_bench::overhead::call::{self, Headers, Server};
use tower_429_bench::overhead::contenders;
use tower_429_bench::overhead::measure::{self, Contender};

/// Fewer than are remembered.
const KEYS: usize = 1_000;

fn main() {
    for headers in Headers::ALL {
        for mut contender in contenders::all() {
            of_one_call(&mut contender, headers); // the first one makes the key
            let count = of_one_call(&mut contender, headers);
            println!("{}, {}\t{count}", headers.name(), contender.name);
        }
    }
    for frames in [1, 1_000] {
        let mut both = Contender::new("both", call::both(&RetryOn429Layer::new(), Server::new(frames)));
        of_one_call(&mut both, Headers::TenOwned);
        println!("{frames} frames\t{}", of_one_call(&mut both, Headers::TenOwned));
    }
    println!("idle key\t{}", idle_key());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _guard = runtime.enter();
    for waiters in [10, 1_000, 100_000] {
        println!("{waiters} waiters\t{}", waiter(waiters));
    }
}

/// Allocations of one call, its request made beforehand.
fn of_one_call(contender: &mut Contender, headers: Headers) -> u64 {
    let mut request = Some(call::request(headers, &call::body()));
    let counted = allocation_counter::measure(|| {
        if let Some(request) = request.take() {
            contender.call(request);
        }
    });
    counted.count_total
}

/// Bytes that the queue itself holds for each of so many waiters.
fn waiter(waiters: usize) -> f64 {
    let mut cx = Context::from_waker(Waker::noop());
    let mut service = ConcurrencyLimitLayer::new(1).layer(Server::new(1));
    let mut send = || Box::pin(service.call(Request::new(Full::<Bytes>::default())));
    let Poll::Ready(Ok(_inside)) = send().as_mut().poll(&mut cx) else { panic!("one fits") };
    let mut queue: Vec<_> = (0..waiters).map(|_| send()).collect();
    let queue = allocation_counter::measure(|| {
        for future in &mut queue {
            assert!(future.as_mut().poll(&mut cx).is_pending(), "no more than one fits");
        }
    });
    queue.bytes_current as f64 / waiters as f64
}

/// Bytes that a key holds that has been used once and is idle now.
fn idle_key() -> f64 {
    let mut service = RetryOn429Layer::new().layer(Server::new(1).with_rate_headers());
    let mut cx = Context::from_waker(Waker::noop());
    let held = allocation_counter::measure(|| {
        for key in 0..KEYS {
            let mut request = Request::new(Full::<Bytes>::default());
            request.extensions_mut().insert(QuotaKey::new(key));
            let mut future = Box::pin(service.call(request));
            let Poll::Ready(Ok(response)) = future.as_mut().poll(&mut cx) else { panic!("nothing is in the way") };
            measure::read_to_end(pin!(response.into_body()), &mut cx);
        }
    });
    held.bytes_current as f64 / KEYS as f64
}
