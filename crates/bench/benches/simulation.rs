//! Every scenario in virtual time, every scheme beside ours. Ends with an error when a bar of ours is missed.
//!
//! ```text
//! cargo bench -p tower-429-bench --bench simulation                       # everything
//! cargo bench -p tower-429-bench --bench simulation -- rpm cap4-far       # these scenarios only
//! cargo bench -p tower-429-bench --bench simulation -- --ours             # ours alone and over a limit, not the peers
//! cargo bench -p tower-429-bench --bench simulation -- --ours cold ramp   # groups: main, cold, ramp, far
//! cargo bench -p tower-429-bench --bench simulation -- --seeds 1 ...      # instead of five
//! cargo bench -p tower-429-bench --bench simulation -- --page docs/simulation.md  # everything, into the page
//! cargo bench -p tower-429-bench --bench simulation -- --plot DIR         # charts
//! ```
//!
//! Paths are relative to the top of the repository.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tower_429_bench::page::{self, Figures};
use tower_429_bench::results::{self, Plan, Row};
use tower_429_bench::scenario::{self, COLD, Distance, MAIN, RAMP, Scenario};
use tower_429_bench::table::Table;
use tower_429_bench::{charts, situations};

/// Retries of a call, ours and everybody's whose name does not say otherwise; and once more, for those who need more.
const RETRIES: u32 = 5;
const MORE_RETRIES: u32 = 20;
/// Where the peers run with more retries, too.
const PATIENT: [&str; 8] = ["rpm", "tpm", "tpm-cold", "ft60", "nohdr-bare", "conc-bare", "second", "second-debt"];
/// The scenario of the page's chart.
const CHART: &str = "nohdr-bare";

/// What the command line asks for.
#[derive(Default)]
struct Arguments {
    ours: bool,
    seeds: Option<u64>,
    page: Option<PathBuf>,
    plot: Option<PathBuf>,
    names: Vec<String>,
}

impl Arguments {
    fn read(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut read = Self::default();
        while let Some(argument) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => {}
                "--ours" => read.ours = true,
                "--seeds" => {
                    let seeds = value()?.parse().ok().filter(|seeds| *seeds > 0);
                    read.seeds = Some(seeds.ok_or("--seeds needs a number above 0")?);
                }
                "--page" => read.page = Some(from_the_top(&value()?)),
                "--plot" => read.plot = Some(from_the_top(&value()?)),
                name if !name.starts_with('-') => read.names.push(argument),
                _ => return Err(format!("what is {argument}?")),
            }
        }
        if read.page.is_some() && (read.ours || !read.names.is_empty()) {
            return Err("--page is for everything: without --ours and names".to_owned());
        }
        Ok(read)
    }

    /// The scenarios that are named, by themselves or by their group; all of them if none is.
    fn scenarios(&self) -> Result<Vec<Scenario>, String> {
        let mut wanted = Vec::new();
        for name in &self.names {
            match name.as_str() {
                "main" => wanted.extend(MAIN),
                "cold" => wanted.extend(COLD),
                "ramp" => wanted.extend(RAMP),
                "far" => wanted.extend(scenario::all().into_iter().filter(|one| one.distance == Distance::Far)),
                label => wanted.push(scenario::named(label).ok_or_else(|| format!("no scenario is called {label}"))?),
            }
        }
        Ok(if self.names.is_empty() { scenario::all() } else { wanted })
    }
}

/// Cargo starts a bench in the directory of its package.
fn from_the_top(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
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

/// Prints tables as they are made, and keeps them for the page.
#[derive(Default)]
struct Report {
    figures: Vec<Figures>,
    missed: usize,
}

impl Report {
    fn add(&mut self, name: &'static str, title: &str, table: &Table) {
        println!("{title}\n\n{table}");
        self.missed += table.missed;
        self.figures.push(Figures { name, text: table.to_string() });
    }

    /// A table of the rows of some scenarios, if there are any.
    fn rows(&mut self, name: &'static str, title: &str, rows: &[Row], table: fn(&[Row]) -> Table) {
        if !rows.is_empty() {
            self.add(name, title, &table(rows));
        }
    }
}

/// Runs what is asked for; tells how many bars were missed.
fn run(arguments: &Arguments) -> Result<usize, String> {
    if let Some(directory) = &arguments.plot {
        charts::draw(directory).map_err(|error| format!("no charts: {error}"))?;
        println!("charts are in {}", directory.display());
        return Ok(0);
    }
    let wanted = arguments.scenarios()?;
    let plan = Plan { retries: RETRIES, seeds: arguments.seeds.unwrap_or(results::SEEDS), peers: !arguments.ours };
    let mut report = Report::default();
    let mut near = Vec::new();
    println!(
        "{RETRIES} retries, seeds 1 to {}. Last column: time over the larger of ours alone and the best that 64 at once can do.\n",
        plan.seeds
    );
    for (name, title, peers, belongs) in GROUPS {
        let scenarios: Vec<Scenario> = wanted.iter().filter(|one| belongs(one)).copied().collect();
        let rows = results::run(&scenarios, Plan { peers: plan.peers && peers, ..plan });
        report.rows(name, title, &rows, results::ours);
        if peers {
            near.extend(rows);
        }
    }
    let whole = arguments.names.is_empty();
    if plan.peers {
        report.rows("all", "All schemes: time ÷ oracle / 429s per success / failed.", &near, results::everybody);
        let patient: Vec<Scenario> = wanted.into_iter().filter(|one| PATIENT.contains(&one.label().as_str())).collect();
        let rows = results::run(&patient, Plan { retries: MORE_RETRIES, ..plan });
        report.rows("patient", &format!("The same with {MORE_RETRIES} retries."), &rows, results::everybody);
    }
    if whole {
        let mut findings = situations::in_virtual_time();
        if plan.peers {
            findings.extend(situations::in_real_time());
        }
        report.add("situations", "Beyond makespans.", &situations::table(&findings));
    }
    if let Some(page) = &arguments.page {
        write(page, &report.figures).map_err(|error| format!("{} is as it was: {error}", page.display()))?;
        println!("the figures are in {}", page.display());
    }
    Ok(report.missed)
}

/// Name of the table, its title, whether the peers run there, and the scenarios in it.
type Group = (&'static str, &'static str, bool, fn(&Scenario) -> bool);

const GROUPS: [Group; 4] = [
    ("main", "Ours: the main job.", true, |one| is_near(one) && is_in(one, MAIN)),
    ("cold", "Ours: the first minute.", true, |one| is_in(one, COLD)),
    ("ramp", "Ours: ramps.", true, |one| is_in(one, RAMP)),
    ("far", "Ours: the main job, far away.", false, |one| !is_near(one)),
];

fn is_near(scenario: &Scenario) -> bool {
    scenario.distance == Distance::Near
}

fn is_in(scenario: &Scenario, group: &[Scenario]) -> bool {
    group.iter().any(|one| one.name == scenario.name)
}

/// Puts the figures into the page, and its chart beside it.
fn write(path: &Path, figures: &[Figures]) -> Result<(), String> {
    let page = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let filled = page::fill(&page, figures)?;
    let chart = scenario::named(CHART).ok_or("there is nothing to draw")?;
    charts::arrivals(&path.with_file_name("arrivals.svg"), &chart).map_err(|error| error.to_string())?;
    std::fs::write(path, filled).map_err(|error| error.to_string())
}
