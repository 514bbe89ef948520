//! What a table of makespans does not show: priorities, servers that never let anybody in, idle time, cancelled calls, and
//! the pace against the real timer.

mod people;
mod refusals;
mod timer;

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

/// All of them; about twenty seconds, most of it for the real timer.
pub fn all() -> Vec<Finding> {
    let mut all = people::priority();
    all.extend(refusals::always_refused());
    all.extend(people::idle_minutes());
    all.extend(people::cancelled());
    all.extend(timer::real_time());
    all
}

/// Prints them; returns how many bars were missed.
pub fn print(findings: &[Finding]) -> usize {
    println!("| situation | found | bar |\n|---|---|---|");
    let mut missed = 0;
    for Finding { what, found, bar } in findings {
        let over = if found > bar { "**" } else { "" };
        missed += usize::from(!over.is_empty());
        println!("| {what} | {over}{found:.3}{over} | {bar:.3} |");
    }
    missed
}

pub use people::{Waits, interactive_waits};
