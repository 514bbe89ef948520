//! Times and allocations of one call, several contenders taking turns so that a noisy machine is noisy for all.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tokio::time::Instant;
use tower::Service;

use super::call::{self, Headers};

/// Calls between two looks at the clock; their requests are made beforehand.
const BATCH: usize = 64;
/// Batches a turn: about a twentieth of a second.
const BATCHES: usize = 400;

/// Makes one call and reads the answer to its end.
pub trait Call {
    /// One call with this request.
    fn call(&mut self, request: Request<Full<Bytes>>);
    /// How large the future of a call is.
    fn future_size(&self) -> usize;
}

impl<S, RB> Call for S
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>, Error = Infallible>,
    RB: Body<Data = Bytes>,
{
    fn call(&mut self, request: Request<Full<Bytes>>) {
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(())) = self.poll_ready(&mut cx) else { panic!("the server is always ready") };
        let future = pin!(Service::call(self, request));
        let Poll::Ready(Ok(response)) = future.poll(&mut cx) else { panic!("the server answers at once") };
        read_to_end(pin!(response.into_body()), &mut cx);
    }

    fn future_size(&self) -> usize {
        size_of::<S::Future>()
    }
}

/// Reads a body to its end; one that is not there yet is there when it is asked again.
pub fn read_to_end<B: Body<Data = Bytes>>(mut body: Pin<&mut B>, cx: &mut Context<'_>) {
    loop {
        match body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => drop(std::hint::black_box(frame.into_data())),
            Poll::Ready(Some(Err(_))) => panic!("no frame fails"),
            Poll::Ready(None) => return,
            Poll::Pending => {}
        }
    }
}

/// One that is measured.
pub struct Contender {
    /// What the table calls it.
    pub name: &'static str,
    service: Box<dyn Call>,
    turns: Vec<f64>,
    /// How large the future of a call is.
    pub future: usize,
}

impl std::fmt::Debug for Contender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contender").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Contender {
    /// A contender.
    pub fn new(name: &'static str, service: impl Call + 'static) -> Self {
        let future = service.future_size();
        Self { name, service: Box::new(service), turns: Vec::new(), future }
    }

    /// One call of its service.
    pub fn call(&mut self, request: Request<Full<Bytes>>) {
        self.service.call(request);
    }

    /// Nanoseconds a call: the median of its turns.
    pub fn nanos(&self) -> f64 {
        median(&self.turns)
    }
}

/// The value in the middle.
pub fn median(of: &[f64]) -> f64 {
    let mut of = of.to_vec();
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Lets the contenders take turns.
pub fn compete(contenders: &mut [Contender], headers: Headers, turns: usize) {
    let body = call::body();
    for _ in 0..turns {
        for contender in contenders.iter_mut() {
            let nanos = turn(contender.service.as_mut(), headers, &body);
            contender.turns.push(nanos);
        }
    }
}

fn turn(service: &mut dyn Call, headers: Headers, body: &Bytes) -> f64 {
    let mut nanos: Vec<f64> = Vec::with_capacity(BATCHES);
    let mut requests: Vec<Request<Full<Bytes>>> = Vec::with_capacity(BATCH);
    for _ in 0..BATCHES {
        requests.extend((0..BATCH).map(|_| call::request(headers, body)));
        let start = Instant::now();
        for request in requests.drain(..) {
            service.call(request);
        }
        nanos.push(start.elapsed().as_nanos() as f64 / BATCH as f64);
    }
    median(&nanos)
}
