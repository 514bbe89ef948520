//! What a call costs that meets no limit, and what a waiting queue costs. Ends with an error when a bar of ours is missed.
//!
//! ```text
//! cargo bench -p tower-429-bench --bench overhead
//! ```

use std::collections::HashMap;
use std::process::ExitCode;

use tower_429::{PacingConfig, RetryOn429Layer};
use tower_429_bench::overhead::call::{self, Headers, Server};
use tower_429_bench::overhead::contenders::{self, BARE, BARE_SHOWN, BOTH, BOTH_SHOWN, TOWER, TOWER_SHOWN};
use tower_429_bench::overhead::measure::{self, Contender};
use tower_429_bench::overhead::{self, wait_queue};

/// Both layers may cost so many nanoseconds more than tower's pair, with six rate headers on the answer and without.
const OVER_TOWER: f64 = 1_500.0;
/// ... and so many allocations more.
const ALLOCATIONS: f64 = 6.0;
/// One decision of the controller.
const ADMISSION: f64 = 150.0;
/// The queue's own share of a waiter, and all that is kept of an idle key, its place in the order of use and its account
/// included.
const WAITER: f64 = 200.0;
const IDLE_KEY: f64 = 1152.0;
/// Alternating turns, of which the median counts.
const TURNS: usize = 5;

/// The bars that were missed, by name.
#[derive(Default)]
struct Bars(Vec<String>);

impl Bars {
    fn check(&mut self, what: &str, value: f64, bar: f64) {
        if value > bar {
            self.0.push(format!("{what}: {value:.0} > {bar:.0}"));
        }
    }
}

fn main() -> ExitCode {
    let mut bars = Bars::default();
    let counted = overhead::counted(env!("CARGO_BIN_EXE_allocations"));
    println!("Nanoseconds a call over the bare `service_fn`, 1 KiB of JSON, median of {TURNS} alternating turns.\n");
    println!("| headers | stack | ns | over tower's pair | allocations | more than tower's | future, bytes |");
    println!("|---|---|---|---|---|---|---|");
    for headers in Headers::ALL {
        calls(headers, &counted, &mut bars);
    }
    controller(&counted, &mut bars);
    let (one, many) = (counted["1 frames"], counted["1000 frames"]);
    println!("| allocations of a call with a body of 1 and of 1,000 frames | {one} and {many} | equal |");
    bars.check("allocations for 999 frames more", many - one, 0.0);
    rooms(&counted, &mut bars);
    if bars.0.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\nmissed:\n- {}", bars.0.join("\n- "));
    ExitCode::FAILURE
}

fn calls(headers: Headers, counted: &HashMap<String, f64>, bars: &mut Bars) {
    let mut all = contenders::all();
    measure::compete(&mut all, headers, TURNS);
    let name = headers.name();
    let allocations = |at: usize| counted[&format!("{name}, {}", all[at].name)];
    let over_tower = |at: usize| {
        let tower = contenders::beside(at, TOWER, TOWER_SHOWN);
        (all[at].nanos() - all[tower].nanos(), allocations(at) - allocations(tower))
    };
    for (at, one) in all.iter().enumerate() {
        let bare = &all[contenders::beside(at, BARE, BARE_SHOWN)];
        let (nanos, more) = over_tower(at);
        println!(
            "| {name} | {} | {:.0} | {nanos:+.0} | {} | {more:+} | {} |",
            one.name,
            one.nanos() - bare.nanos(),
            allocations(at),
            one.future,
        );
    }
    for (at, what) in [(BOTH, "both over tower's"), (BOTH_SHOWN, "the same, six rate headers")] {
        let (nanos, more) = over_tower(at);
        bars.check(&format!("{name}: {what}, ns"), nanos, OVER_TOWER);
        bars.check(&format!("{name}: {what}, allocations"), more, ALLOCATIONS);
    }
}

/// A decision of the controller cannot be called on its own. It is measured as what pacing adds to a call: the decision by the
/// buckets, the window and the learned rate.
fn controller(counted: &HashMap<String, f64>, bars: &mut Bars) {
    let layer = RetryOn429Layer::new;
    let shown = || Server::new(1).with_rate_headers();
    let mut all = [
        Contender::new("pacing", call::retry(&layer(), shown())),
        Contender::new("no pacing", call::retry(&layer().pacing(PacingConfig::off()), shown())),
    ];
    measure::compete(&mut all, Headers::ThreeOwned, 2 * TURNS + 1);
    let admission = all[0].nanos() - all[1].nanos();
    println!("\n| controller | found | bar |\n|---|---|---|");
    println!(
        "| one decision, two dimensions known (against `PacingConfig::off()`), ns | {admission:.0} | {ADMISSION:.0} |"
    );
    bars.check("one decision of the controller, ns", admission, ADMISSION);
    let key = counted["idle key"];
    println!("| kept of an idle key, bytes | {key:.0} | {IDLE_KEY:.0} |");
    bars.check("kept of an idle key, bytes", key, IDLE_KEY);
}

fn rooms(counted: &HashMap<String, f64>, bars: &mut Bars) {
    println!("\n| waiters | bytes each (bar {WAITER:.0}) | grant, ns | cancel, ns | wake-ups a permit (bar 1) |");
    println!("|---|---|---|---|---|");
    for waiters in [10, 1_000, 100_000] {
        let costs = wait_queue::costs(waiters);
        let bytes = counted[&format!("{waiters} waiters")];
        println!("| {waiters} | {bytes:.0} | {:.0} | {:.0} | {:.2} |", costs.grant, costs.cancel, costs.wakes);
        if waiters > 10 {
            // A tree of ten is half empty.
            bars.check(&format!("{waiters} waiters: bytes each"), bytes, WAITER);
        }
        bars.check(&format!("{waiters} waiters: wake-ups a permit"), costs.wakes, 1.0);
    }
}
