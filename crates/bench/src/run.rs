//! Runs a scenario's jobs through a scheme in virtual time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;
use tower::{Service, ServiceExt};
use tower_429_testing::{OUTPUT_TOKENS_HEADER, Provider, SERVICE_MS_HEADER, TOKENS_HEADER};

use crate::scenario::{Change, Job, Scenario};

/// What came of a run.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Seconds until the last call was done.
    pub time: f64,
    /// Calls that were answered with a success.
    pub done: usize,
    /// Calls that were not.
    pub failed: usize,
    /// Refusals that the server sent.
    pub refused: usize,
}

/// The request of a job.
pub fn request(job: &Job) -> Request<Full<Bytes>> {
    let body = Bytes::from_static(br#"{"model":"ft:gpt-4o-mini:acme::7p4lURel","messages":[]}"#);
    Request::post("https://api.openai.com/v1/chat/completions")
        .header("authorization", "Bearer test")
        .header(TOKENS_HEADER, job.tokens.to_string())
        .header(OUTPUT_TOKENS_HEADER, "0")
        .header(SERVICE_MS_HEADER, format!("{:.3}", job.service.as_secs_f64() * 1e3))
        .body(Full::new(body))
        .expect("a request of constants")
}

/// A fresh virtual clock, and the future run on it.
fn virtually<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), future)
}

fn apply(change: Option<Change>, provider: &Provider) {
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

/// Submits all jobs at once, spread over the services, and waits for the last.
pub fn all_at_once<S, RB>(
    scenario: &Scenario,
    seed: u64,
    make: impl Fn(Provider) -> S,
    prepare: impl Fn(&Job, &mut Request<Full<Bytes>>),
) -> Outcome
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + 'static,
    S::Error: std::fmt::Debug,
    RB: Body<Data = Bytes> + 'static,
    RB::Error: std::fmt::Debug,
{
    virtually(async {
        let provider = scenario.provider(seed);
        let services: Vec<S> = (0..scenario.processes).map(|_| make(provider.clone())).collect();
        apply(scenario.change, &provider);
        let start = Instant::now();
        let mut calls = JoinSet::new();
        for (index, job) in scenario.jobs(seed).iter().enumerate() {
            let service = services[index % services.len()].clone();
            let mut request = request(job);
            prepare(job, &mut request);
            calls.spawn_local(async move {
                let Ok(response) = service.oneshot(request).await else { return false };
                let ok = response.status().is_success();
                ok && response.into_body().collect().await.is_ok()
            });
        }
        let results = calls.join_all().await;
        let done = results.iter().filter(|ok| **ok).count();
        let time = start.elapsed().as_secs_f64();
        Outcome { time, done, failed: results.len() - done, refused: provider.seen().refused() }
    })
}

/// Somebody who sees the server's buckets and sends only what will be let in.
pub fn oracle(scenario: &Scenario, seed: u64) -> Outcome {
    virtually(async {
        let provider = scenario.provider(seed);
        apply(scenario.change, &provider);
        let start = Instant::now();
        let jobs = Rc::new(RefCell::new(VecDeque::from(scenario.jobs(seed))));
        let (mut calls, mut travelling) = (JoinSet::new(), VecDeque::<(Instant, f64)>::new());
        let mut cut = 1.0;
        loop {
            let now = Instant::now();
            if let Some(Change::Cut(at, factor)) = scenario.change
                && now - start >= at
            {
                cut = factor;
            }
            while travelling.front().is_some_and(|(arrives, _)| *arrives <= now) {
                travelling.pop_front();
            }
            let Some(job) = jobs.borrow_mut().pop_front() else {
                match calls.join_next().await {
                    Some(_) => continue,
                    None => break,
                }
            };
            let out = travelling.len() as f64;
            let tokens: f64 = travelling.iter().map(|(_, tokens)| tokens).sum();
            let need = job.tokens.min(scenario.tokens.cap * cut);
            let mut wait = f64::max(
                (1.0 + out - provider.level_requests()) / (scenario.requests.rate * cut),
                (need + tokens - provider.level_tokens()) / (scenario.tokens.rate * cut),
            );
            if let Some(hidden) = scenario.hidden {
                wait = wait.max((1.0 + out - provider.level_hidden()) / hidden.rate);
            }
            let cap = match scenario.change {
                Some(Change::Cap(at, calls)) if now - start >= at => Some(calls),
                _ => scenario.at_once,
            };
            if cap.is_some_and(|cap| provider.in_flight() + travelling.len() >= cap) {
                wait = wait.max(0.02);
            }
            if wait > 1e-9 {
                jobs.borrow_mut().push_front(job);
                let wait = Duration::try_from_secs_f64(wait.clamp(0.002, 1.0)).unwrap_or_default();
                tokio::time::sleep(wait).await;
                continue;
            }
            travelling.push_back((now + Duration::from_millis(41), job.tokens));
            let (jobs, provider) = (Rc::clone(&jobs), provider.clone());
            calls.spawn_local(async move {
                let response = provider.oneshot(request(&job)).await.expect("a provider never fails");
                if response.status().is_success() {
                    let _ = response.into_body().collect().await;
                } else {
                    jobs.borrow_mut().push_front(job);
                }
            });
            tokio::task::yield_now().await;
        }
        let time = start.elapsed().as_secs_f64();
        Outcome { time, done: scenario.jobs, failed: 0, refused: provider.seen().refused() }
    })
}
