//! What a call costs that meets no limit, and what a waiting room costs. Ends with an error when a bar of ours is missed.
//!
//! ```text
//! cargo bench -p tower-429-bench --bench overhead
//! ```

use std::process::ExitCode;

use tower_429::RetryOn429Layer;
use tower_429_bench::overhead::call::{self, Headers, Server};
use tower_429_bench::overhead::measure::{self, Contender};
use tower_429_bench::overhead::room;

/// Both layers may cost so much more than tower's pair.
const OVER_TOWER: f64 = 700.0;
/// ... and so much when the answer carries six rate headers.
const OVER_TOWER_WITH_HEADERS: f64 = 850.0;
/// ... and so many allocations more.
const ALLOCATIONS: u64 = 3;
/// One decision of the gate.
const ADMISSION: f64 = 150.0;
/// The room's own share of a waiter, and all that is kept of an idle key.
const WAITER: f64 = 200.0;
const IDLE_KEY: f64 = 1024.0;
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
    println!("Nanoseconds a call over the bare `service_fn`, 1 KiB of JSON, median of {TURNS} alternating turns.\n");
    println!("| headers | stack | ns | over tower's pair | allocations | more than tower's | future, bytes |");
    println!("|---|---|---|---|---|---|---|");
    for headers in Headers::ALL {
        calls(headers, &mut bars);
    }
    gate(&mut bars);
    frames(&mut bars);
    rooms(&mut bars);
    if bars.0.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\nmissed:\n- {}", bars.0.join("\n- "));
    ExitCode::FAILURE
}

fn calls(headers: Headers, bars: &mut Bars) {
    let plain = || Server::new(1);
    let shown = || Server::new(1).with_rate_headers();
    let ours = RetryOn429Layer::new;
    // A token dimension that no header confirms: the request is read to its end for its cost.
    let tokens = || ours().tokens_per_minute(u32::MAX);
    let mut all = [
        Contender::new("bare", plain()),
        Contender::new("tower's pair", call::tower_pair(plain())),
        Contender::new("retry", call::retry(&ours(), plain())),
        Contender::new("limit", call::limit(plain())),
        Contender::new("**both**", call::both(&ours(), plain())),
        Contender::new("both, tokens known", call::both(&tokens(), plain())),
        Contender::new("bare, six rate headers", shown()),
        Contender::new("tower's pair, six rate headers", call::tower_pair(shown())),
        Contender::new("**both, six rate headers**", call::both(&ours(), shown())),
    ];
    measure::compete(&mut all, headers, TURNS);
    let [bare, tower, .., bare_shown, tower_shown, both_shown] = &all;
    for one in &all {
        let (bare, tower) = if one.name.contains("six") { (bare_shown, tower_shown) } else { (bare, tower) };
        println!(
            "| {} | {} | {:.0} | {:+.0} | {} | {:+} | {} |",
            headers.name(),
            one.name,
            one.nanos() - bare.nanos(),
            one.nanos() - tower.nanos(),
            one.allocations,
            one.allocations as i64 - tower.allocations as i64,
            one.future,
        );
    }
    let both = &all[4];
    let name = headers.name();
    bars.check(&format!("{name}: both over tower's, ns"), both.nanos() - tower.nanos(), OVER_TOWER);
    let with_headers = both_shown.nanos() - tower_shown.nanos();
    bars.check(&format!("{name}: both over tower's, six rate headers, ns"), with_headers, OVER_TOWER_WITH_HEADERS);
    for (ours, theirs) in [(both, tower), (both_shown, tower_shown)] {
        let more = ours.allocations.saturating_sub(theirs.allocations);
        bars.check(&format!("{name}: allocations more than tower's"), more as f64, ALLOCATIONS as f64);
    }
}

/// The gate has no door of its own in the public interface. What pacing adds to a call is one decision of the levels, the
/// window and the ceiling; what is left of a visit is a lock and a clock.
fn gate(bars: &mut Bars) {
    let layer = RetryOn429Layer::new;
    let shown = || Server::new(1).with_rate_headers();
    let mut all = [
        Contender::new("pacing", call::retry(&layer(), shown())),
        Contender::new("no pacing", call::retry(&layer().pacing(false), shown())),
    ];
    measure::compete(&mut all, Headers::ThreeOwned, 2 * TURNS + 1);
    let admission = all[0].nanos() - all[1].nanos();
    println!("\n| gate | found | bar |\n|---|---|---|");
    println!("| one decision, two dimensions known (against `pacing(false)`), ns | {admission:.0} | {ADMISSION:.0} |");
    bars.check("one decision of the gate, ns", admission, ADMISSION);
    let key = room::idle_key();
    println!("| kept of an idle key, bytes | {key:.0} | {IDLE_KEY:.0} |");
    bars.check("kept of an idle key, bytes", key, IDLE_KEY);
}

fn frames(bars: &mut Bars) {
    let count = |frames| {
        let mut both = call::both(&RetryOn429Layer::new(), Server::new(frames));
        let body = call::body();
        measure::allocations(&mut both, Headers::TenOwned, &body); // the first call makes the key
        measure::allocations(&mut both, Headers::TenOwned, &body)
    };
    let (one, many) = (count(1), count(1_000));
    println!("| allocations of a call with a body of 1 and of 1,000 frames | {one} and {many} | equal |");
    bars.check("allocations for 999 frames more", many.saturating_sub(one) as f64, 0.0);
}

fn rooms(bars: &mut Bars) {
    println!("\n| waiters | bytes each (bar {WAITER:.0}) | grant, ns | cancel, ns | wake-ups a slot (bar 1) |");
    println!("|---|---|---|---|---|");
    for waiters in [10, 1_000, 100_000] {
        let costs = room::costs(waiters);
        println!("| {waiters} | {:.0} | {:.0} | {:.0} | {:.2} |", costs.bytes, costs.grant, costs.cancel, costs.wakes);
        if waiters > 10 {
            // A tree of ten is half empty.
            bars.check(&format!("{waiters} waiters: bytes each"), costs.bytes, WAITER);
        }
        bars.check(&format!("{waiters} waiters: wake-ups a slot"), costs.wakes, 1.0);
    }
}
