//! Every scenario in virtual time: how long, and how often refused. Ends with an error when a bar of ours is missed.

use tower::Layer;
use tower_429::{Cost, RetryOn429Layer};
use tower_429_bench::run::{Outcome, all_at_once, oracle};
use tower_429_bench::scenario::{ALL, Scenario};

const SEEDS: u64 = 5;

fn ours(scenario: &Scenario, seed: u64) -> Outcome {
    all_at_once(
        scenario,
        seed,
        |provider| RetryOn429Layer::new().layer(provider),
        |job, request| {
            request.extensions_mut().insert(Cost::tokens(job.estimate));
        },
    )
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    println!(
        "| scenario | time ÷ oracle (worst) | bar | 429s per success (worst) | bar | failed |\n|---|---|---|---|---|---|"
    );
    let mut missed = 0;
    for scenario in ALL.iter().filter(|scenario| wanted.is_empty() || wanted.iter().any(|name| name == scenario.name)) {
        let (mut times, mut refusals, mut failed) = (Vec::new(), Vec::new(), 0);
        for seed in 1..=SEEDS {
            let (best, outcome) = (oracle(scenario, seed), ours(scenario, seed));
            times.push(outcome.time / best.time);
            refusals.push(outcome.refused as f64 / outcome.done.max(1) as f64);
            failed += outcome.failed;
        }
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        let worst = |of: &[f64]| of.iter().copied().fold(0.0, f64::max);
        let (time, refused) = (mean(&times), mean(&refusals));
        let over = |value: f64, bar: f64| if value > bar + 5e-4 { "**" } else { "" };
        let (t, r) = (over(time, scenario.time_bar), over(refused, scenario.refused_bar));
        missed += usize::from(!t.is_empty()) + usize::from(!r.is_empty()) + usize::from(failed > 1);
        println!(
            "| {} | {t}{time:.3}{t} ({:.2}) | {:.2} | {r}{refused:.3}{r} ({:.2}) | {:.2} | {failed} |",
            scenario.name,
            worst(&times),
            scenario.time_bar,
            worst(&refusals),
            scenario.refused_bar
        );
    }
    if missed > 0 {
        println!("\n{missed} bars missed");
        std::process::exit(1);
    }
}
