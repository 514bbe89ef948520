//! What a table of makespans does not show: priorities, servers that never let anybody in, idle time, cancelled calls, and
//! the pace against the real timer.

mod people;
mod throttles;
mod timer;

use crate::table::Table;

/// One bar, and what was found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The situation.
    pub what: String,
    /// What was found.
    pub found: f64,
    /// What is still good.
    pub bar: f64,
}

impl Finding {
    fn new(what: impl Into<String>, found: f64, bar: f64) -> Self {
        Self { what: what.into(), found, bar }
    }
}

/// Those in virtual time.
pub fn in_virtual_time() -> Vec<Finding> {
    let mut all = people::priority();
    all.extend(throttles::always_throttled());
    all.extend(people::idle_minutes());
    all.extend(people::cancelled());
    all
}

/// Those against the real timer; they take about twenty seconds.
pub fn in_real_time() -> Vec<Finding> {
    timer::real_time()
}

/// What was found beside its bars, and how many of them were missed.
pub fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new(["situation", "found", "bar"]);
    for Finding { what, found, bar } in findings {
        let value = table.check(format!("{found:.3}"), *found, *bar);
        table.row([what.clone(), value, format!("{bar:.3}")]);
    }
    table
}

pub use people::{Waits, interactive_waits};
