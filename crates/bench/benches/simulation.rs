//! Every scenario in virtual time, every scheme beside ours. Ends with an error when a bar of ours is missed.
//!
//! ```text
//! cargo bench -p tower-429-bench --bench simulation                 # everything
//! cargo bench -p tower-429-bench --bench simulation -- rpm cap4     # these scenarios only
//! cargo bench -p tower-429-bench --bench simulation -- --plot DIR   # charts
//! ```

use std::path::Path;
use std::process::ExitCode;

use tower_429_bench::scenario::{ALL, Scenario};
use tower_429_bench::situations;
use tower_429_bench::{charts, results};

/// Retries of a call, ours and everybody's whose name does not say otherwise; and once more, for those who need more.
const RETRIES: u32 = 5;
const MORE_RETRIES: u32 = 20;
/// Where the peers run with more retries, too.
const PATIENT: [&str; 7] = ["rpm", "tpm", "ft60", "nohdr-bare", "conc-bare", "second", "second-debt"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--plot") {
        let directory = arguments.get(at + 1).map_or("target/charts", String::as_str);
        if let Err(error) = charts::draw(Path::new(directory)) {
            println!("no charts: {error}");
            return ExitCode::FAILURE;
        }
        println!("charts are in {directory}");
        return ExitCode::SUCCESS;
    }
    let named = |scenario: &&Scenario| arguments.iter().any(|name| name == scenario.name);
    let mut wanted: Vec<Scenario> = ALL.iter().filter(named).copied().collect();
    let whole = wanted.is_empty();
    if whole {
        wanted = ALL.to_vec();
    }
    let rows = results::run(&wanted, RETRIES);
    println!(
        "Ours, {RETRIES} retries, five seeds. Last column: time over the larger of ours alone and the best that 64 at once can do.\n"
    );
    let mut missed = results::print_ours(&rows);
    println!("\nAll schemes, {RETRIES} retries: time ÷ oracle / 429s per success / failed.\n");
    results::print_all(&rows);
    wanted.retain(|scenario| PATIENT.contains(&scenario.name));
    if !wanted.is_empty() {
        println!("\nThe same with {MORE_RETRIES} retries.\n");
        results::print_all(&results::run(&wanted, MORE_RETRIES));
    }
    if whole {
        println!("\nBeyond makespans.\n");
        missed += situations::print(&situations::all());
    }
    if missed > 0 {
        println!("\n{missed} bars missed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
