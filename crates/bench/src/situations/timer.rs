//! The pace against the real timer, which fires on whole milliseconds and late: in process, but in real time.

use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};
use tower_429_testing::{Latency, Limit, Provider};

use super::Finding;
use crate::request::{Kind, request};
use crate::scenario::Job;
use crate::schemes::{self, Setting};
use crate::wire::Wire;

pub(super) fn real_time() -> Vec<Finding> {
    [40.0, 200.0]
        .into_iter()
        .map(|rate| Finding::new(format!("real time: a pace of {rate}/s, time over ideal"), lag(rate), 1.02))
        .collect()
}

/// How much longer than at that rate exactly the calls of five seconds take, once the pace is known.
fn lag(rate: f64) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        // A bucket that was used up: what comes in is all there is.
        let limit = Limit::per(rate * 60.0, Duration::from_secs(60)).starting_at(1.0);
        let latency = Latency::default();
        let wire = Wire::new(Provider::builder().requests(limit).latency(latency).build());
        let client = schemes::ours(wire.clone(), Setting { seed: 1, retries: 5 });
        let job = Job {
            kind: Kind::Prose,
            text: 100.0,
            max_tokens: None,
            tokens: 100.0,
            output: 10.0,
            service: Duration::from_millis(20),
        };
        let (warm, counted) = ((2.0 * rate) as usize, (5.0 * rate) as usize);
        let mut calls = JoinSet::new();
        for number in 0..=warm + counted {
            calls.spawn_local(client(request(number, &job)));
        }
        calls.join_all().await;
        let mut sent: Vec<f64> =
            wire.attempts().iter().filter(|attempt| !attempt.throttled).map(|attempt| attempt.sent).collect();
        sent.sort_by(f64::total_cmp);
        (sent[warm + counted] - sent[warm]) / (counted as f64 / rate)
    })
}
