//! Every scenario in virtual time, every scheme beside ours. Ends with an error when a bar of ours is missed.
//!
//! ```text
//! cargo bench -p tower-429-bench --bench simulation                       # everything
//! cargo bench -p tower-429-bench --bench simulation -- rpm cap4-far       # these scenarios only
//! cargo bench -p tower-429-bench --bench simulation -- --ours             # ours alone and over a limit, not the peers
//! cargo bench -p tower-429-bench --bench simulation -- --ours cold ramp   # groups: present, cold, ramp, far
//! cargo bench -p tower-429-bench --bench simulation -- --seeds 1 ...      # instead of five
//! cargo bench -p tower-429-bench --bench simulation -- --plot DIR         # charts
//! ```

use std::path::Path;
use std::process::ExitCode;

use tower_429_bench::charts;
use tower_429_bench::results::{self, Plan};
use tower_429_bench::scenario::{self, COLD, Distance, PRESENT, RAMP, Scenario};
use tower_429_bench::situations;

/// Retries of a call, ours and everybody's whose name does not say otherwise; and once more, for those who need more.
const RETRIES: u32 = 5;
const MORE_RETRIES: u32 = 20;
/// Where the peers run with more retries, too.
const PATIENT: [&str; 8] = ["rpm", "tpm", "tpm-cold", "ft60", "nohdr-bare", "conc-bare", "second", "second-debt"];

/// What the command line asks for.
#[derive(Default)]
struct Arguments {
    ours: bool,
    seeds: Option<u64>,
    plot: Option<String>,
    names: Vec<String>,
}

impl Arguments {
    fn read(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut read = Self::default();
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--bench" => {}
                "--ours" => read.ours = true,
                "--seeds" => {
                    let seeds = given.next().and_then(|number| number.parse().ok()).filter(|seeds| *seeds > 0);
                    read.seeds = Some(seeds.ok_or("--seeds needs a number above 0")?);
                }
                "--plot" => read.plot = Some(given.next().unwrap_or_else(|| "target/charts".to_owned())),
                _ => read.names.push(argument),
            }
        }
        Ok(read)
    }

    /// The scenarios that are named, by themselves or by their group; all of them if none is.
    fn scenarios(&self) -> Result<Vec<Scenario>, String> {
        if self.names.is_empty() {
            return Ok(scenario::all());
        }
        let mut wanted = Vec::new();
        for name in &self.names {
            match name.as_str() {
                "present" => wanted.extend(PRESENT),
                "cold" => wanted.extend(COLD),
                "ramp" => wanted.extend(RAMP),
                "far" => wanted.extend(scenario::all().into_iter().filter(|one| one.distance == Distance::Far)),
                label => wanted.push(scenario::named(label).ok_or_else(|| format!("no scenario is called {label}"))?),
            }
        }
        Ok(wanted)
    }
}

fn main() -> ExitCode {
    match Arguments::read(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(missed) => {
            println!("\n{missed} bars missed");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what is asked for; tells how many bars were missed.
fn run(arguments: &Arguments) -> Result<usize, String> {
    if let Some(directory) = &arguments.plot {
        charts::draw(Path::new(directory)).map_err(|error| format!("no charts: {error}"))?;
        println!("charts are in {directory}");
        return Ok(0);
    }
    let wanted = arguments.scenarios()?;
    let seeds = arguments.seeds.unwrap_or(results::SEEDS);
    let plan = Plan { retries: RETRIES, seeds, peers: !arguments.ours };
    // Peers are compared near the server only.
    let (near, far): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|one| one.distance == Distance::Near);
    let rows = results::run(&near, plan);
    let far_rows = results::run(&far, Plan { peers: false, ..plan });
    println!(
        "Ours, {RETRIES} retries, seeds 1 to {seeds}. Last column: time over the larger of ours alone and the best that 64 at once can do.\n"
    );
    let mut missed = results::print_ours(rows.iter().chain(&far_rows));
    if arguments.ours {
        return Ok(missed);
    }
    println!("\nAll schemes, {RETRIES} retries: time ÷ oracle / 429s per success / failed.\n");
    results::print_all(&rows);
    let patient: Vec<Scenario> = near.into_iter().filter(|scenario| PATIENT.contains(&scenario.name)).collect();
    if !patient.is_empty() {
        println!("\nThe same with {MORE_RETRIES} retries.\n");
        results::print_all(&results::run(&patient, Plan { retries: MORE_RETRIES, ..plan }));
    }
    if arguments.names.is_empty() {
        println!("\nBeyond makespans.\n");
        missed += situations::print(&situations::all());
    }
    Ok(missed)
}
