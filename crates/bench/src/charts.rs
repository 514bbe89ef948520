//! Charts as SVG: what arrives at the server and what it throttles, scheme by scheme, and how long interactive calls wait.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use tower_429::Priority;

use crate::results::one;
use crate::run::Outcome;
use crate::scenario::{MAIN, Scenario};
use crate::schemes::{self, PEERS, Scheme, Setting};
use crate::situations::interactive_waits;

const INK: RGBColor = RGBColor(0x33, 0x38, 0x40);
const FAINT: RGBColor = RGBColor(0xe3, 0xe6, 0xea);
const TAKEN: RGBColor = RGBColor(0x2a, 0x7d, 0xb8);
const REFUSED: RGBColor = RGBColor(0xd8, 0x4a, 0x3a);
/// Patient enough that most peers come to an end.
const RETRIES: u32 = 20;
/// The schemes of a chart, ours first.
const SHOWN: [&str; 4] = ["tower + hints, limit 64", "async-openai", "reqwest-retry", "tower-resilience"];
/// Beyond this many a second bars are cut off and say so.
const HIGHEST: usize = 60;

type Result = std::result::Result<(), Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws all of them into a directory.
pub fn draw(directory: &Path) -> Result {
    std::fs::create_dir_all(directory)?;
    for scenario in MAIN.iter().filter(|scenario| ["rpm", "nohdr-bare", "conc-bare"].contains(&scenario.name)) {
        arrivals(&directory.join(format!("arrivals-{}.svg", scenario.name)), scenario)?;
    }
    waits(&directory.join("interactive.svg"))
}

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Draws what arrives at the server of a scenario.
///
/// # Errors
///
/// The file cannot be written.
pub fn arrivals(path: &Path, scenario: &Scenario) -> Result {
    let ours = Scheme { name: "tower-429", make: schemes::ours };
    let peers = SHOWN.iter().filter_map(|name| PEERS.iter().find(|peer| peer.name == *name));
    let runs: Vec<(&str, Outcome)> = std::iter::once(&ours)
        .chain(peers)
        .map(|scheme| (scheme.name, one(scheme, scenario, Setting { seed: 1, retries: RETRIES })))
        .collect();
    let span = (1.6 * runs[0].1.time).ceil();
    let root = SVGBackend::new(path, (900, 130 * runs.len() as u32 + 70)).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, panels) = root.split_vertically(48);
    let title = format!("{} calls, submitted at once, to a server that {}", scenario.jobs, describe(scenario));
    head.draw(&Text::new(title, (16, 8), text(17)))?;
    head.draw(&Rectangle::new([(16, 32), (26, 42)], TAKEN.filled()))?;
    head.draw(&Text::new("taken, a second", (32, 31), text(13)))?;
    head.draw(&Rectangle::new([(146, 32), (156, 42)], REFUSED.filled()))?;
    head.draw(&Text::new(format!("throttled (bars end at {HIGHEST})"), (162, 31), text(13)))?;
    let rows = panels.split_evenly((runs.len(), 1));
    for (at, (area, (name, outcome))) in rows.iter().zip(&runs).enumerate() {
        panel(area, name, outcome, span, at + 1 == runs.len())?;
    }
    root.present()?;
    Ok(())
}

fn describe(scenario: &Scenario) -> String {
    let rate = scenario.requests.map_or(f64::INFINITY, |requests| requests.rate);
    match scenario.at_once {
        Some(calls) => format!("takes {calls} at a time and says nothing but “Rate limit reached”"),
        None if scenario.bare => {
            format!("takes {:.0} a minute and says nothing but “Rate limit reached”", 60.0 * rate)
        }
        None => format!("takes {:.0} a minute, with rate headers and hints", 60.0 * rate),
    }
}

fn panel(area: &Area<'_>, name: &str, outcome: &Outcome, span: f64, last: bool) -> Result {
    let mut seconds = vec![(0_usize, 0_usize); span as usize + 1];
    for attempt in &outcome.attempts {
        if let Some((taken, throttled)) = seconds.get_mut(attempt.sent as usize) {
            *if attempt.throttled { throttled } else { taken } += 1;
        }
    }
    let mut chart = ChartBuilder::on(area)
        .margin_left(12)
        .margin_right(16)
        .margin_top(24)
        .x_label_area_size(if last { 34 } else { 6 })
        .y_label_area_size(34)
        .build_cartesian_2d(0.0..span, 0.0..HIGHEST as f64)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh().light_line_style(WHITE).bold_line_style(FAINT).axis_style(FAINT).label_style(text(12));
    mesh.y_labels(3).y_label_formatter(&|count| format!("{count:.0}"));
    if last {
        mesh.x_label_formatter(&|second| format!("{second:.0}")).x_desc("seconds").axis_desc_style(text(12));
    } else {
        mesh.x_labels(0);
    }
    mesh.draw()?;
    let bar = |at: usize, from: usize, to: usize, color: RGBColor| {
        let (from, to) = (from.min(HIGHEST) as f64, to.min(HIGHEST) as f64);
        Rectangle::new([(at as f64 + 0.08, from), (at as f64 + 0.92, to)], color.filled())
    };
    let bars = seconds.iter().enumerate().flat_map(|(at, &(taken, throttled))| {
        let blue = (taken > 0).then(|| bar(at, 0, taken, TAKEN));
        let red = (throttled > 0 && taken < HIGHEST).then(|| bar(at, taken, taken + throttled, REFUSED));
        blue.into_iter().chain(red)
    });
    chart.draw_series(bars)?;
    let later = if outcome.time > span { ", beyond this chart" } else { "" };
    let said = format!(
        "{name}: {} of {} done in {:.0} s{later}, {} throttles",
        outcome.done,
        outcome.done + outcome.failed,
        outcome.time,
        outcome.throttled
    );
    area.draw(&Text::new(said, (46, 5), text(14)))?;
    Ok(())
}

fn waits(path: &Path) -> Result {
    use Priority::{Batch, Interactive, Normal};
    let lines = [
        ("interactive beside a batch, by priority", TAKEN, interactive_waits(schemes::ours, Batch, Interactive)),
        ("first come, first served", INK, interactive_waits(schemes::ours, Normal, Normal)),
    ];
    let root = SVGBackend::new(path, (900, 360)).into_drawing_area();
    root.fill(&WHITE)?;
    let highest = lines.iter().flat_map(|(_, _, run)| &run.waits).map(|(_, wait)| *wait).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .caption("Wait of one call a second beside a batch of 1,000, 500 a minute", text(17))
        .x_label_area_size(36)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..62.0, 0.0..(highest * 1.1).ceil())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .axis_style(FAINT)
        .label_style(text(12))
        .x_label_formatter(&|second| format!("{second:.0}"))
        .y_label_formatter(&|second| format!("{second:.0}"))
        .x_desc("submitted after, seconds")
        .y_desc("waited, seconds")
        .axis_desc_style(text(12))
        .draw()?;
    for (name, color, run) in &lines {
        chart
            .draw_series(LineSeries::new(run.waits.iter().copied(), color.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(FAINT)
        .label_font(text(13))
        .draw()?;
    root.present()?;
    Ok(())
}
