//! The servers and the work, in the order of the tables.

use std::time::Duration;

use tower_429_testing::{Charge, Hints, RateHeaders};

use super::TimeBar::{Ideal, Seconds};
use super::jobs::SPREAD;
use super::{Change, Counting, Distance, Scenario, Service, Size};
use crate::request::{IDS, IMAGE_CHAT, Kind};

const BASE: Scenario = Scenario {
    name: "rpm",
    time_bar: Ideal(1.01),
    throttled_bar: 0.01,
    failed_bar: 0,
    jobs: 1500,
    requests: Size::minute(500.0),
    requests_shown: None,
    requests_at: None,
    tokens: Size::minute(200_000.0),
    tokens_shown: None,
    hidden: None,
    at_once: None,
    charge: Charge::Burn,
    headers: RateHeaders::All,
    bare: false,
    hints: Hints::Headers,
    fixed: false,
    foreign: 0.0,
    change: None,
    distance: Distance::Near,
    processes: 1,
    kind: Kind::Prose,
    prompt: 150.0,
    spread: SPREAD,
    max_tokens: Some(100.0),
    output: 60.0,
    counting: Counting::Larger,
    price: 1.0,
    service: Service::Tokens(60.0),
    mixed: false,
};
const TPM: Scenario = Scenario {
    name: "tpm",
    throttled_bar: 0.03,
    jobs: 800,
    requests: Size::minute(3000.0),
    tokens: Size::minute(90_000.0),
    prompt: 700.0,
    max_tokens: Some(500.0),
    output: 250.0,
    ..BASE
};
const FT60: Scenario = Scenario {
    name: "ft60",
    time_bar: Ideal(1.02),
    throttled_bar: 0.02,
    jobs: 300,
    requests: Size::minute(60.0),
    tokens: Size::minute(60_000.0),
    prompt: 200.0,
    max_tokens: Some(256.0),
    output: 120.0,
    ..BASE
};
const HIDDEN: Scenario = Scenario {
    name: "hidden",
    throttled_bar: 0.03,
    tokens: Size::minute(400_000.0),
    hidden: Some(Size { cap: 9.0, rate: 500.0 / 60.0 }),
    ..BASE
};
const NOHDR: Scenario = Scenario {
    name: "nohdr",
    time_bar: Ideal(1.02),
    throttled_bar: 0.08,
    tokens: Size::minute(400_000.0),
    headers: RateHeaders::None,
    hints: Hints::Neither,
    ..BASE
};
const CONC: Scenario = Scenario {
    name: "conc",
    time_bar: Ideal(1.02),
    throttled_bar: 0.06,
    jobs: 600,
    requests: Size::minute(3000.0),
    tokens: Size::minute(2e6),
    at_once: Some(20),
    max_tokens: Some(600.0),
    output: 300.0,
    ..BASE
};
const CAP: Scenario = Scenario {
    name: "cap4",
    time_bar: Ideal(1.05),
    throttled_bar: 0.10,
    jobs: 300,
    requests: Size::minute(1e6),
    tokens: Size::minute(1e12),
    at_once: Some(4),
    bare: true,
    headers: RateHeaders::SuccessOnly,
    max_tokens: Some(600.0),
    output: 300.0,
    service: Service::LogNormal(1.0, 0.5),
    ..BASE
};
const SECOND: Scenario = Scenario {
    name: "second",
    time_bar: Ideal(1.04),
    throttled_bar: 0.06,
    jobs: 1000,
    requests: Some(Size { cap: 500.0 / 60.0, rate: 500.0 / 60.0 }),
    requests_shown: Some(500.0),
    ..BASE
};

/// The servers of the main job, in the order of the table.
pub const MAIN: &[Scenario] = &[
    BASE,
    Scenario { name: "rpm-debt", charge: Charge::Debt(0.25), ..BASE },
    TPM,
    Scenario { name: "tpm-under", time_bar: Ideal(1.02), throttled_bar: 0.05, price: 1.0 / 0.3, ..TPM },
    Scenario { name: "tpm-over", time_bar: Ideal(1.02), throttled_bar: 0.04, price: 1.0 / 3.0, ..TPM },
    FT60,
    HIDDEN,
    Scenario { name: "hidden-bare", time_bar: Ideal(1.03), throttled_bar: 0.05, bare: true, ..HIDDEN },
    NOHDR,
    Scenario { name: "nohdr-bare", throttled_bar: 0.10, bare: true, ..NOHDR },
    CONC,
    Scenario { name: "conc-bare", bare: true, ..CONC },
    Scenario { name: "conc-bare-2xx", bare: true, headers: RateHeaders::SuccessOnly, ..CONC },
    Scenario { name: "conc-bare-nohdr", bare: true, headers: RateHeaders::None, ..CONC },
    CAP,
    Scenario { name: "cap1", throttled_bar: 0.12, at_once: Some(1), ..CAP },
    Scenario {
        name: "drop",
        time_bar: Ideal(1.10),
        throttled_bar: 0.08,
        jobs: 800,
        at_once: Some(20),
        change: Some(Change::Cap(Duration::from_secs(15), 8)),
        ..CAP
    },
    Scenario {
        name: "cut",
        tokens: Size::minute(400_000.0),
        change: Some(Change::Cut(Duration::from_secs(60), 0.4)),
        ..BASE
    },
    Scenario { name: "slow", jobs: 1200, tokens: Size::minute(2e6), max_tokens: Some(1200.0), output: 700.0, ..BASE },
    Scenario {
        name: "tokmix",
        time_bar: Ideal(1.02),
        throttled_bar: 0.05,
        jobs: 600,
        prompt: 400.0,
        mixed: true,
        ..TPM
    },
    Scenario { name: "multi4", time_bar: Ideal(1.03), throttled_bar: 0.03, processes: 4, ..BASE },
    Scenario {
        name: "multi16",
        time_bar: Ideal(1.05),
        throttled_bar: 0.20,
        failed_bar: 1,
        processes: 16,
        jobs: 1600,
        ..BASE
    },
    Scenario {
        name: "foreign",
        time_bar: Ideal(1.48),
        throttled_bar: 0.02,
        jobs: 1200,
        requests_at: Some(100.0),
        tokens: Size::minute(400_000.0),
        foreign: 3.0,
        ..BASE
    },
    SECOND,
    Scenario { name: "second-debt", time_bar: Ideal(1.10), throttled_bar: 0.05, charge: Charge::Debt(1.0), ..SECOND },
    Scenario {
        name: "second60",
        time_bar: Ideal(1.25),
        throttled_bar: 0.40,
        jobs: 100,
        requests: Some(Size { cap: 1.0, rate: 1.0 }),
        requests_shown: Some(60.0),
        ..FT60
    },
    Scenario {
        name: "second-tpm",
        time_bar: Ideal(1.80),
        throttled_bar: 0.20,
        jobs: 400,
        tokens: Some(Size { cap: 1500.0, rate: 1500.0 }),
        tokens_shown: Some(90_000.0),
        prompt: 300.0,
        max_tokens: Some(200.0),
        ..TPM
    },
    Scenario { name: "fixed-rpm", time_bar: Ideal(1.15), throttled_bar: 0.01, fixed: true, ..BASE },
    Scenario { name: "fixed-tpm", time_bar: Ideal(1.05), throttled_bar: 0.05, fixed: true, ..TPM },
];

/// More calls at once than the tokens of a minute are enough for. The server answers after half a second, shows its tokens
/// and explains its 429s in words.
const TPM_COLD: Scenario = Scenario {
    name: "tpm-cold",
    time_bar: Ideal(1.02),
    throttled_bar: 0.03,
    jobs: 200,
    requests: None,
    tokens: Size::minute(125_000.0),
    hints: Hints::Message,
    prompt: 4_000.0,
    spread: 0.0,
    max_tokens: None,
    service: Service::Fixed(0.5),
    ..BASE
};
/// Prompts between a line and a book, so that one guess for all of them is no good one.
const TPM_CHINESE: Scenario = Scenario {
    name: "tpm-chinese",
    time_bar: Ideal(1.10),
    throttled_bar: 0.10,
    jobs: 500,
    kind: Kind::Chinese,
    prompt: 800.0,
    spread: 1.2,
    max_tokens: None,
    ..TPM
};
/// The first minute of a process: every kind of body against a limit on tokens.
pub const COLD: &[Scenario] = &[
    TPM_COLD,
    Scenario { name: "tpm-cold-small", jobs: 1_000, tokens: Size::minute(30_000.0), prompt: 100.0, ..TPM_COLD },
    Scenario {
        name: "tpm-sum",
        time_bar: Ideal(1.02),
        throttled_bar: 0.05,
        counting: Counting::Sum,
        prompt: 300.0,
        ..TPM
    },
    Scenario {
        name: "embed-ids",
        time_bar: Ideal(1.05),
        throttled_bar: 0.10,
        tokens: Size::minute(1e6),
        kind: Kind::TokenIds,
        prompt: IDS as f64,
        ..TPM_COLD
    },
    Scenario {
        name: "tpm-images",
        time_bar: Ideal(1.10),
        throttled_bar: 0.10,
        jobs: 80,
        tokens: Size::minute(30_000.0),
        kind: Kind::Image,
        prompt: IMAGE_CHAT,
        ..TPM_COLD
    },
    TPM_CHINESE,
    Scenario { name: "tpm-chinese-escaped", kind: Kind::ChineseEscaped, ..TPM_CHINESE },
    Scenario {
        name: "tpm-unknown",
        time_bar: Ideal(1.10),
        throttled_bar: 0.15,
        kind: Kind::Form,
        prompt: 800.0,
        max_tokens: None,
        ..TPM
    },
];

const RAMP_10K: Scenario = Scenario {
    name: "ramp",
    time_bar: Seconds(8.0),
    jobs: 10_000,
    requests: None,
    tokens: None,
    headers: RateHeaders::None,
    service: Service::Fixed(1.0),
    ..BASE
};
/// Servers that take far more than a client dares to send at first, and say nothing.
pub const RAMP: &[Scenario] = &[
    RAMP_10K,
    Scenario { name: "ramp-30k", time_bar: Seconds(12.0), jobs: 30_000, ..RAMP_10K },
    Scenario {
        name: "ramp-cap",
        time_bar: Ideal(1.30),
        throttled_bar: 0.10,
        at_once: Some(1_000),
        bare: true,
        hints: Hints::Neither,
        ..RAMP_10K
    },
];

/// What a far server may cost more: in time over the oracle's, which is as far away, and in 429s per success.
const FAR: (f64, f64) = (0.05, 0.10);
/// ... in time where few may run at once: a call that has ended is known to have ended 0.3 s later.
const FAR_CAP: f64 = 0.30;

/// The same server, far away.
fn far(near: &Scenario) -> Scenario {
    let more = if matches!(near.name, "cap4" | "cap1") { FAR_CAP } else { FAR.0 };
    let time_bar = match near.time_bar {
        Ideal(times) => Ideal(times + more),
        Seconds(seconds) => Seconds(seconds),
    };
    Scenario { time_bar, throttled_bar: near.throttled_bar + FAR.1, distance: Distance::Far, ..*near }
}

/// All scenarios: those of the main job, the first minute, the ramps, and those of the main job far away.
pub fn all() -> Vec<Scenario> {
    let near = [MAIN, COLD, RAMP].concat();
    let far: Vec<Scenario> = MAIN.iter().map(far).collect();
    [near, far].concat()
}

/// The scenario of this label.
pub fn named(label: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.label() == label)
}
