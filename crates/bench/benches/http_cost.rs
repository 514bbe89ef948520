//! Processor time that a call over loopback takes, with each stack around a hyper client. Ends with an error when the bar
//! is missed.
//!
//! ```text
//! cargo bench -p tower-429-bench --bench http_cost                # about six minutes
//! cargo bench -p tower-429-bench --bench http_cost -- --calls N   # instead of 40,000 a turn
//! ```
//!
//! The server is this program once more, in a process of its own. What is measured is the client's processor time, user
//! and system, by `getrusage`: waiting costs nothing. Another program on the same machine makes the caches colder and the
//! figures larger, those of all stacks alike, since they take turns.

use std::process::ExitCode;

use tower_429_bench::http_cost::client::{self, CALLS, Contender, WORKERS};
use tower_429_bench::http_cost::server::{self, Server};
use tower_429_bench::overhead::measure::median;

/// Both layers may take so many times what the bare client takes.
const BAR: f64 = 1.15;
/// Turns of all stacks.
const TURNS: usize = 5;
/// Parts of a turn: the stacks alternate after each, so that what else the machine does meets all of them. The median of
/// all parts counts.
const PARTS: usize = 10;
/// Credentials that the calls carry in turn.
const KEYS: [usize; 2] = [1, 1_000];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [server::ARGUMENT] => server::run().map(|()| 0).map_err(|error| error.to_string()),
        [] => compare(CALLS),
        ["--calls", calls] => match calls.parse() {
            Ok(calls) if calls >= PARTS => compare(calls),
            _ => Err(format!("--calls needs a number of at least {PARTS}")),
        },
        _ => Err(format!("what is {}?", arguments.join(" "))),
    };
    match outcome {
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

/// Runs all; tells how many bars were missed.
fn compare(calls: usize) -> Result<usize, String> {
    println!(
        "Processor time a call: {TURNS} turns of {calls} calls by {WORKERS} workers, in {PARTS} alternating parts.\n"
    );
    println!("| keys | stack | µs | of it system | × hyper alone | bar |\n|---|---|---|---|---|---|");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    let server = Server::start().map_err(|error| error.to_string())?;
    let mut missed = 0;
    for keys in KEYS {
        let mut contenders = client::all();
        runtime.block_on(async {
            for contender in &mut contenders {
                // Connections are made, and keys.
                contender.run(server.address, keys, calls / PARTS).await?;
                contender.runs.clear();
            }
            for _ in 0..TURNS * PARTS {
                for contender in &mut contenders {
                    contender.run(server.address, keys, calls / PARTS).await?;
                }
            }
            Ok::<_, String>(())
        })?;
        missed += print(keys, &contenders);
    }
    Ok(missed)
}

fn print(keys: usize, contenders: &[Contender]) -> usize {
    let mut missed = 0;
    let bare = &contenders[0].runs;
    for (at, Contender { name, runs, .. }) in contenders.iter().enumerate() {
        let of =
            |read: fn(&tower_429_bench::http_cost::Usage) -> f64| median(&runs.iter().map(read).collect::<Vec<_>>());
        let micros = of(|run| run.total().as_secs_f64() * 1e6);
        let system = of(|run| run.system.as_secs_f64() * 1e6);
        let times: Vec<f64> =
            runs.iter().zip(bare).map(|(own, bare)| own.total().as_secs_f64() / bare.total().as_secs_f64()).collect();
        let times = median(&times);
        let held = at + 1 == contenders.len();
        let over = held && times > BAR;
        missed += usize::from(over);
        let mark = if over { "**" } else { "" };
        let bar = if held { format!("{BAR:.2}") } else { String::new() };
        println!("| {keys} | {name} | {micros:.1} | {system:.1} | {mark}{times:.2}{mark} | {bar} |");
    }
    missed
}
