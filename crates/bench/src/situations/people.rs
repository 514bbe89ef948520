//! Calls that are not all submitted at once: interactive ones beside a batch, idle minutes, and cancelled ones.

use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::Layer;
use tower_429::{Priority, QuotaKey};

use super::Finding;
use crate::request::request;
use crate::run::{Client, client, virtually};
use crate::scenario::{self, Job, Scenario};
use crate::schemes::{self, Setting};
use crate::wire::Wire;

const RETRIES: u32 = 5;
/// Seconds in which an interactive call is submitted: about as long as the batch takes.
const INTERACTIVE: usize = 60;

fn named(label: &str) -> Scenario {
    scenario::named(label).expect("a scenario of this name")
}

/// How long interactive calls waited beside a batch.
#[derive(Debug)]
pub struct Waits {
    /// When each was submitted, and how long it was until its last attempt was sent.
    pub waits: Vec<(f64, f64)>,
    /// Seconds until all was done.
    pub makespan: f64,
}

impl Waits {
    fn p95(&self) -> f64 {
        let mut waits: Vec<f64> = self.waits.iter().map(|(_, wait)| *wait).collect();
        waits.sort_by(f64::total_cmp);
        waits[waits.len() * 95 / 100]
    }
}

/// One interactive call a second beside a batch of 1,000 on a key of 500 a minute.
pub fn interactive_waits(make: fn(Wire, Setting) -> Client, batch: Priority, other: Priority) -> Waits {
    let scenario = Scenario { jobs: 1_000, ..named("rpm") };
    virtually(async {
        let wire = Wire::new(scenario.provider(1));
        let client = make(wire.clone(), Setting { seed: 1, retries: RETRIES });
        let start = Instant::now();
        let jobs = scenario.jobs(1);
        let call = |number: usize, class: Priority| {
            let mut request = request(number, &jobs[number % jobs.len()]);
            request.extensions_mut().insert(class);
            client(request)
        };
        let mut calls = JoinSet::new();
        for number in 0..jobs.len() {
            calls.spawn_local(call(number, batch));
        }
        let mut submitted = Vec::new();
        for second in 0..INTERACTIVE {
            sleep(Duration::from_secs(1)).await;
            submitted.push(start.elapsed().as_secs_f64());
            calls.spawn_local(call(jobs.len() + second, other));
        }
        calls.join_all().await;
        let makespan = start.elapsed().as_secs_f64();
        let attempts = wire.attempts();
        let sent = |number: usize| {
            attempts
                .iter()
                .filter(|attempt| attempt.call == number)
                .map(|attempt| attempt.sent)
                .fold(f64::NAN, f64::max)
        };
        let waits = submitted.iter().enumerate().map(|(at, from)| (*from, sent(jobs.len() + at) - from)).collect();
        Waits { waits, makespan }
    })
}

pub(super) fn priority() -> Vec<Finding> {
    let mixed = interactive_waits(schemes::ours, Priority::Batch, Priority::Interactive);
    let fifo = interactive_waits(schemes::ours, Priority::Normal, Priority::Normal);
    vec![
        Finding::new(
            format!(
                "one interactive call a second beside a batch of 1,000: p95 of its wait, s (first come, first served: {:.0})",
                fifo.p95()
            ),
            mixed.p95(),
            0.3,
        ),
        Finding::new(
            "... time until all is done, over that of first come, first served",
            mixed.makespan / fifo.makespan,
            1.02,
        ),
    ]
}

/// Two bursts with ten idle minutes between them, from a server that tells nothing.
pub(super) fn idle_minutes() -> Vec<Finding> {
    let scenario = Scenario { jobs: 750, ..named("nohdr") };
    let (mut throttled, mut failed) = (0.0, 0.0);
    for seed in 1..=5 {
        let (r, f) = virtually(async {
            let provider = scenario.provider(seed);
            let client = schemes::ours(Wire::new(provider.clone()), Setting { seed, retries: RETRIES });
            let burst = async |jobs: Vec<Job>| {
                let mut calls = JoinSet::new();
                for (number, job) in jobs.iter().enumerate() {
                    calls.spawn_local(client(request(number, job)));
                }
                calls.join_all().await.iter().filter(|ok| !**ok).count()
            };
            let first = burst(scenario.jobs(seed)).await;
            sleep(Duration::from_secs(600)).await;
            let before = provider.seen().throttled();
            let second = burst(scenario.jobs(seed + 100)).await;
            ((provider.seen().throttled() - before) as f64 / (scenario.jobs - second).max(1) as f64, first + second)
        });
        throttled += r / 5.0;
        failed += f as f64;
    }
    vec![
        Finding::new("after ten idle minutes, no headers: 429s per success", throttled, 0.10),
        Finding::new("... failed", failed, 0.0),
    ]
}

/// A seventh of all calls is given up at a random moment: the others are done, and nothing stays taken.
pub(super) fn cancelled() -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in ["rpm", "nohdr-bare", "conc-bare"] {
        let scenario = named(name);
        let (time, failed, left) = virtually(async {
            let provider = scenario.provider(1);
            let layer = schemes::layer(Setting { seed: 1, retries: RETRIES });
            let quotas = layer.quotas();
            let client = client(layer.layer(Wire::new(provider)));
            let key = QuotaKey::new("one");
            let (start, mut rng) = (Instant::now(), Rng::with_seed(1));
            let mut calls = JoinSet::new();
            for (number, job) in scenario.jobs(1).iter().enumerate() {
                let mut request = request(number, job);
                request.extensions_mut().insert(key);
                let call = client(request);
                let given_up = (rng.f64() < 0.15).then(|| Duration::from_millis(rng.u64(0..40_000)));
                calls.spawn_local(async move {
                    let Some(after) = given_up else { return (call.await, start.elapsed().as_secs_f64()) };
                    (tokio::time::timeout(after, call).await.unwrap_or(true), 0.0)
                });
            }
            let each = async {
                let (mut failed, mut last) = (0, 0.0);
                while let Some(result) = calls.join_next().await {
                    let (ok, at) = result.unwrap_or((false, 0.0));
                    failed += usize::from(!ok);
                    last = f64::max(last, at);
                }
                (failed, last)
            };
            let never = (scenario.jobs, f64::INFINITY);
            let (failed, last) = tokio::time::timeout(Duration::from_secs(3_600), each).await.unwrap_or(never);
            let left = quotas.snapshot(key).map_or(0, |key| key.in_flight as usize + key.queued);
            (last, failed, left)
        });
        let whole = crate::results::one(
            &schemes::Scheme { name: "ours", make: schemes::ours },
            &scenario,
            Setting { seed: 1, retries: RETRIES },
        );
        findings.push(Finding::new(
            format!("15 % of the calls cancelled, {name}: time over none cancelled"),
            time / whole.time,
            1.05,
        ));
        findings.push(Finding::new("... failed or stalled, and still taken at the end", (failed + left) as f64, 0.0));
    }
    findings
}
