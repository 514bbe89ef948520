//! Runs a scenario's jobs through a scheme in virtual time.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;
use tower::{Service, ServiceExt};
use tower_429_testing::Provider;

use crate::request::request;
use crate::scenario::{Change, Scenario};
use crate::wire::{Attempt, Wire};

/// A run that takes longer than this in virtual time is broken off, its open calls failed: two hours.
pub const LONGEST: Duration = Duration::from_secs(7_200);

/// A future on one thread.
pub type Local<T> = Pin<Box<dyn Future<Output = T>>>;
/// A client: makes a call with all its attempts, reads the answer to its end, and tells whether it was a success.
pub type Client = Rc<dyn Fn(Request<Full<Bytes>>) -> Local<bool>>;

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Seconds until the last call was done.
    pub time: f64,
    /// Calls that were answered with a success.
    pub done: usize,
    /// Calls that were not.
    pub failed: usize,
    /// 429s that the server sent.
    pub throttled: usize,
    /// Each attempt.
    pub attempts: Vec<Attempt>,
}

impl Outcome {
    /// 429s for each success.
    pub fn throttled_per_ok(&self) -> f64 {
        self.throttled as f64 / self.done.max(1) as f64
    }
}

/// A client that is a tower service; cloned for each call.
pub fn client<S, RB>(service: S) -> Client
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + 'static,
    S::Error: Debug,
    RB: Body<Data = Bytes> + 'static,
    RB::Error: Debug,
{
    Rc::new(move |request| {
        let call = service.clone().oneshot(request);
        Box::pin(async move {
            let Ok(response) = call.await else { return false };
            response.status().is_success() && response.into_body().collect().await.is_ok()
        })
    })
}

/// Runs a future on a fresh virtual clock.
pub fn virtually<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), future)
}

/// Lets happen to the server what happens in the middle of the run.
pub fn apply(change: Option<Change>, provider: &Provider) {
    let provider = provider.clone();
    match change {
        None => {}
        Some(Change::Cut(at, factor)) => drop(tokio::task::spawn_local(async move {
            tokio::time::sleep(at).await;
            provider.cut(factor);
        })),
        Some(Change::Cap(at, calls)) => drop(tokio::task::spawn_local(async move {
            tokio::time::sleep(at).await;
            provider.set_at_once(Some(calls));
        })),
    }
}

/// Submits all jobs at once, spread over the scenario's processes, and waits for the last.
pub fn all_at_once(scenario: &Scenario, seed: u64, make: impl Fn(Wire) -> Client) -> Outcome {
    virtually(async {
        let provider = scenario.provider(seed);
        let wire = Wire::new(provider.clone());
        let clients: Vec<Client> = (0..scenario.processes).map(|_| make(wire.clone())).collect();
        apply(scenario.change, &provider);
        let start = Instant::now();
        let mut calls = JoinSet::new();
        for (number, job) in scenario.jobs(seed).iter().enumerate() {
            calls.spawn_local(clients[number % clients.len()](request(number, job)));
        }
        let all = calls.len();
        let (mut done, mut time) = (0, 0.0);
        let each = async {
            while let Some(result) = calls.join_next().await {
                done += usize::from(result.is_ok_and(|ok| ok));
                time = start.elapsed().as_secs_f64();
            }
        };
        let _ = tokio::time::timeout(LONGEST, each).await;
        Outcome { time, done, failed: all - done, throttled: provider.seen().throttled(), attempts: wire.attempts() }
    })
}
