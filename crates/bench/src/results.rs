//! Every scheme in every scenario, and the tables of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::oracle::oracle;
use crate::run::{Outcome, all_at_once};
use crate::scenario::{Scenario, TimeBar};
use crate::schemes::{self, PEERS, Scheme, Setting};
use crate::table::Table;

/// Runs of each scheme in each scenario.
pub const SEEDS: u64 = 5;
/// `RetryOn429` over a limit may take so much longer than the larger of the two alone.
const COMPOSED: f64 = 1.02;
/// Calls at once of the limit below ours.
const LIMIT: usize = 64;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Retries of each call.
    pub retries: u32,
    /// Runs of each scheme.
    pub seeds: u64,
    /// Everybody else, too.
    pub peers: bool,
}

/// The means of a scheme's runs.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    time: f64,
    seconds: f64,
    throttled: f64,
    /// The share of calls that failed.
    failed: f64,
    worst_time: f64,
    worst_throttled: f64,
    failures: usize,
}

/// What came of one scenario.
#[derive(Debug)]
pub struct Row {
    scenario: Scenario,
    ours: Mean,
    /// Time over the larger of `RetryOn429` alone and the best that so many at once can do.
    composed: Mean,
    peers: Vec<Mean>,
}

fn mean(outcomes: &[Outcome], best: &[f64]) -> Mean {
    let count = outcomes.len() as f64;
    let mut mean = Mean::default();
    for (outcome, best) in outcomes.iter().zip(best) {
        let (time, throttled) = (outcome.time / best, outcome.throttled_per_ok());
        mean.time += time / count;
        mean.seconds += outcome.time / count;
        mean.throttled += throttled / count;
        mean.failed += outcome.failed as f64 / (outcome.done + outcome.failed) as f64 / count;
        mean.worst_time = mean.worst_time.max(time);
        mean.worst_throttled = mean.worst_throttled.max(throttled);
        mean.failures += outcome.failed;
    }
    mean
}

/// One run of a scheme.
pub fn one(scheme: &Scheme, scenario: &Scenario, setting: Setting) -> Outcome {
    fastrand::seed(setting.seed); // the jitter of those who draw from the thread's generator
    all_at_once(scenario, setting.seed, |wire| (scheme.make)(wire, setting))
}

fn row(scenario: &Scenario, plan: Plan) -> Row {
    let Plan { retries, seeds, peers } = plan;
    let runs = |scheme: &Scheme| -> Vec<Outcome> {
        let bare = |outcome| Outcome { attempts: Vec::new(), ..outcome };
        (1..=seeds).map(|seed| bare(one(scheme, scenario, Setting { seed, retries }))).collect()
    };
    let best = |at_once| -> Vec<f64> { (1..=seeds).map(|seed| oracle(scenario, seed, at_once).time).collect() };
    let (free, limited) = (best(usize::MAX), best(LIMIT * scenario.processes));
    let ours = runs(&Scheme { name: "ours", make: schemes::ours });
    let composed = runs(&Scheme { name: "composed", make: schemes::over_a_limit });
    let larger: Vec<f64> = ours.iter().zip(&limited).map(|(alone, best)| alone.time.max(*best)).collect();
    let peers = if peers { PEERS } else { &[] };
    Row {
        scenario: *scenario,
        ours: mean(&ours, &free),
        composed: mean(&composed, &larger),
        peers: peers.iter().map(|peer| mean(&runs(peer), &free)).collect(),
    }
}

/// Runs all, on as many threads as there are processors.
pub fn run(scenarios: &[Scenario], plan: Plan) -> Vec<Row> {
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(scenario) = scenarios.get(at) else { break };
            let row = row(scenario, plan);
            rows.lock().expect("no run panics").push((at, row));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    let mut rows = rows.into_inner().expect("no run panics");
    rows.sort_by_key(|(at, _)| *at);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Ours beside its bars, and how many of them were missed.
pub fn ours(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "scenario",
        "time ÷ oracle (worst)",
        "bar",
        "429s per success (worst)",
        "bar",
        "failed",
        "over a limit of 64: time / 429s / failed",
    ]);
    for row in rows {
        against_bars(row, &mut table);
    }
    table
}

fn against_bars(row: &Row, table: &mut Table) {
    let Row { scenario, ours, composed, .. } = row;
    let value = |value: f64| format!("{value:.3}");
    let count = |failures: usize| failures.to_string();
    let (time, time_bar) = match scenario.time_bar {
        TimeBar::Ideal(bar) => (table.check(value(ours.time), ours.time, bar), format!("{bar:.2}")),
        TimeBar::Seconds(bar) => {
            let time = format!("{:.3}, {:.1} s", ours.time, ours.seconds);
            (table.check(time, ours.seconds, bar), format!("{bar:.0} s"))
        }
    };
    // Each process has a limit of its own: together they are not the 64 that the bar is made for.
    let composed_bar = if scenario.processes == 1 { scenario.throttled_bar } else { f64::INFINITY };
    let failed_bar = scenario.failed_bar as f64;
    let cells = [
        scenario.label(),
        format!("{time} ({:.2})", ours.worst_time),
        time_bar,
        format!(
            "{} ({:.2})",
            table.check(value(ours.throttled), ours.throttled, scenario.throttled_bar),
            ours.worst_throttled
        ),
        format!("{:.2}", scenario.throttled_bar),
        table.check(count(ours.failures), ours.failures as f64, failed_bar),
        format!(
            "{} / {} / {}",
            table.check(value(composed.time), composed.time, COMPOSED),
            table.check(value(composed.throttled), composed.throttled, composed_bar),
            table.check(count(composed.failures), composed.failures as f64, failed_bar),
        ),
    ];
    table.row(cells);
}

/// All schemes beside each other: time ÷ oracle / 429s per success / failed.
pub fn everybody(rows: &[Row]) -> Table {
    let peers = PEERS.iter().map(|peer| peer.name);
    let mut table = Table::new(["scenario", "**ours**"].into_iter().chain(peers));
    for row in rows {
        let means = std::iter::once(&row.ours).chain(&row.peers);
        table.row(std::iter::once(row.scenario.label()).chain(means.map(cell)));
    }
    table
}

fn cell(mean: &Mean) -> String {
    let failed = if mean.failures == 0 { "0".to_owned() } else { format!("{:.0} %", (100.0 * mean.failed).max(1.0)) };
    let throttled =
        if mean.throttled < 10.0 { format!("{:.2}", mean.throttled) } else { format!("{:.0}", mean.throttled) };
    format!("{:.2} / {throttled} / {failed}", mean.time)
}
