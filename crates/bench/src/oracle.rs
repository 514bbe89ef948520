//! Somebody who sees the server's buckets and sends only what will be let in: the best time that there is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::request::request;
use crate::run::{Outcome, apply, virtually};
use crate::scenario::{Change, Scenario};

/// The time it takes, with at most so many calls at once.
pub fn oracle(scenario: &Scenario, seed: u64, at_once: usize) -> Outcome {
    virtually(async {
        let provider = scenario.provider(seed);
        apply(scenario.change, &provider);
        let start = Instant::now();
        let longest_way = scenario.distance.latency().request.end + Duration::from_millis(1);
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
            while calls.try_join_next().is_some() {}
            let Some(job) = jobs.borrow_mut().pop_front() else {
                match calls.join_next().await {
                    Some(_) => continue,
                    None => break,
                }
            };
            if calls.len() >= at_once {
                jobs.borrow_mut().push_front(job);
                calls.join_next().await;
                continue;
            }
            let out = travelling.len() as f64;
            let tokens: f64 = travelling.iter().map(|(_, tokens)| tokens).sum();
            let mut wait = 0.0_f64;
            if let Some(requests) = scenario.requests {
                wait = wait.max((1.0 + out - provider.level_requests()) / (requests.rate * cut));
            }
            if let Some(limit) = scenario.tokens {
                let need = job.tokens.min(limit.cap * cut);
                wait = wait.max((need + tokens - provider.level_tokens()) / (limit.rate * cut));
            }
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
            travelling.push_back((now + longest_way, job.tokens));
            let (jobs, provider) = (Rc::clone(&jobs), provider.clone());
            calls.spawn_local(async move {
                let response = provider.oneshot(request(0, &job)).await.expect("a provider never fails");
                if response.status().is_success() {
                    let _ = response.into_body().collect().await;
                } else {
                    jobs.borrow_mut().push_front(job);
                }
            });
            tokio::task::yield_now().await;
        }
        let time = start.elapsed().as_secs_f64();
        let throttled = provider.seen().throttled();
        Outcome { time, done: scenario.jobs, failed: 0, throttled, attempts: Vec::new() }
    })
}
