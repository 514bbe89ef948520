//! The scenarios: what the server enforces, what it says, and the jobs that are all submitted at once.

use std::time::Duration;

use fastrand::Rng;
use tower_429_testing::{Charge, Latency, Limit, Provider, RateHeaders, Wording};
use tower_429_testing::{HintUnit, Hints};

/// One call to be made: what the server charges, how long it takes, what the client believes that it costs.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Tokens charged at admission.
    pub tokens: f64,
    /// The client's estimate of them.
    pub estimate: f64,
    /// How long the server works on it.
    pub service: Duration,
}

/// A bucket's capacity and its refill a second.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// What it holds when full.
    pub cap: f64,
    /// What it gets a second.
    pub rate: f64,
}

impl Size {
    const fn minute(n: f64) -> Self {
        Self { cap: n, rate: n / 60.0 }
    }
}

/// How long a call takes.
#[derive(Debug, Clone, Copy)]
pub enum Service {
    /// By its output tokens, at so many a second.
    Tokens(f64),
    /// Log-normal: mean seconds, sigma.
    LogNormal(f64, f64),
}

/// What happens in the middle of a run.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// All limits times a factor.
    Cut(Duration, f64),
    /// Another cap on calls at once.
    Cap(Duration, usize),
}

/// A server, and the work that is brought to it. `name` and the bars come first: they are what the table shows.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the fields are the columns of a table, named as in the field")]
pub struct Scenario {
    pub name: &'static str,
    /// Time over the oracle's that is still good.
    pub time_bar: f64,
    /// 429s per success that are still good.
    pub refused_bar: f64,
    pub jobs: usize,
    pub requests: Size,
    pub requests_shown: Option<f64>,
    pub requests_at: Option<f64>,
    pub tokens: Size,
    pub tokens_shown: Option<f64>,
    pub hidden: Option<Size>,
    pub at_once: Option<usize>,
    pub charge: Charge,
    pub headers: RateHeaders,
    pub bare: bool,
    pub hints: bool,
    pub fixed: bool,
    pub foreign: f64,
    pub change: Option<Change>,
    pub processes: usize,
    pub prompt: f64,
    pub max_tokens: f64,
    pub output: f64,
    pub estimates: f64,
    pub service: Service,
    pub mixed: bool,
}

const BASE: Scenario = Scenario {
    name: "rpm",
    time_bar: 1.01,
    refused_bar: 0.01,
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
    hints: true,
    fixed: false,
    foreign: 0.0,
    change: None,
    processes: 1,
    prompt: 150.0,
    max_tokens: 100.0,
    output: 60.0,
    estimates: 1.0,
    service: Service::Tokens(60.0),
    mixed: false,
};
const TPM: Scenario = Scenario {
    name: "tpm",
    refused_bar: 0.03,
    jobs: 800,
    requests: Size::minute(3000.0),
    tokens: Size::minute(90_000.0),
    prompt: 300.0,
    max_tokens: 500.0,
    output: 250.0,
    ..BASE
};
const FT60: Scenario = Scenario {
    name: "ft60",
    time_bar: 1.02,
    refused_bar: 0.02,
    jobs: 300,
    requests: Size::minute(60.0),
    tokens: Size::minute(60_000.0),
    prompt: 200.0,
    max_tokens: 256.0,
    output: 120.0,
    ..BASE
};
const HIDDEN: Scenario = Scenario {
    name: "hidden",
    refused_bar: 0.03,
    tokens: Size::minute(400_000.0),
    hidden: Some(Size { cap: 9.0, rate: 500.0 / 60.0 }),
    ..BASE
};
const NOHDR: Scenario = Scenario {
    name: "nohdr",
    time_bar: 1.02,
    refused_bar: 0.08,
    tokens: Size::minute(400_000.0),
    headers: RateHeaders::None,
    hints: false,
    ..BASE
};
const CONC: Scenario = Scenario {
    name: "conc",
    time_bar: 1.02,
    refused_bar: 0.06,
    jobs: 600,
    requests: Size::minute(3000.0),
    tokens: Size::minute(2e6),
    at_once: Some(20),
    max_tokens: 600.0,
    output: 300.0,
    ..BASE
};
const CAP: Scenario = Scenario {
    name: "cap4",
    time_bar: 1.05,
    refused_bar: 0.10,
    jobs: 300,
    requests: Size::minute(1e6),
    tokens: Size::minute(1e12),
    at_once: Some(4),
    bare: true,
    headers: RateHeaders::SuccessOnly,
    max_tokens: 600.0,
    output: 300.0,
    service: Service::LogNormal(1.0, 0.5),
    ..BASE
};
const SECOND: Scenario = Scenario {
    name: "second",
    time_bar: 1.04,
    refused_bar: 0.06,
    jobs: 1000,
    requests: Size { cap: 500.0 / 60.0, rate: 500.0 / 60.0 },
    requests_shown: Some(500.0),
    ..BASE
};

/// All scenarios, in the order of the table.
pub const ALL: &[Scenario] = &[
    BASE,
    Scenario { name: "rpm-debt", charge: Charge::Debt(0.25), ..BASE },
    TPM,
    Scenario { name: "tpm-under", time_bar: 1.02, refused_bar: 0.05, estimates: 0.3, ..TPM },
    Scenario { name: "tpm-over", time_bar: 1.02, refused_bar: 0.04, estimates: 3.0, ..TPM },
    FT60,
    HIDDEN,
    Scenario { name: "hidden-bare", time_bar: 1.03, refused_bar: 0.05, bare: true, ..HIDDEN },
    NOHDR,
    Scenario { name: "nohdr-bare", refused_bar: 0.10, bare: true, ..NOHDR },
    CONC,
    Scenario { name: "conc-bare", bare: true, ..CONC },
    Scenario { name: "conc-bare, headers on 2xx", bare: true, headers: RateHeaders::SuccessOnly, ..CONC },
    Scenario { name: "conc-bare, no headers", bare: true, headers: RateHeaders::None, ..CONC },
    CAP,
    Scenario { name: "cap1", refused_bar: 0.12, at_once: Some(1), ..CAP },
    Scenario {
        name: "drop",
        time_bar: 1.10,
        refused_bar: 0.08,
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
    Scenario { name: "slow", jobs: 1200, tokens: Size::minute(2e6), max_tokens: 1200.0, output: 700.0, ..BASE },
    Scenario { name: "tokmix", time_bar: 1.02, refused_bar: 0.05, jobs: 600, prompt: 400.0, mixed: true, ..TPM },
    Scenario { name: "multi4", time_bar: 1.03, refused_bar: 0.03, processes: 4, ..BASE },
    Scenario { name: "multi16", time_bar: 1.05, refused_bar: 0.20, processes: 16, jobs: 1600, ..BASE },
    Scenario {
        name: "foreign",
        time_bar: 1.48,
        refused_bar: 0.02,
        jobs: 1200,
        requests_at: Some(100.0),
        tokens: Size::minute(400_000.0),
        foreign: 3.0,
        ..BASE
    },
    SECOND,
    Scenario { name: "second-debt", time_bar: 1.10, refused_bar: 0.05, charge: Charge::Debt(1.0), ..SECOND },
    Scenario {
        name: "second60",
        time_bar: 1.25,
        refused_bar: 0.40,
        jobs: 100,
        requests: Size { cap: 1.0, rate: 1.0 },
        requests_shown: Some(60.0),
        ..FT60
    },
    Scenario {
        name: "second-tpm",
        time_bar: 1.80,
        refused_bar: 0.20,
        jobs: 400,
        tokens: Size { cap: 1500.0, rate: 1500.0 },
        tokens_shown: Some(90_000.0),
        max_tokens: 200.0,
        ..TPM
    },
    Scenario { name: "fixed-rpm", time_bar: 1.15, refused_bar: 0.01, fixed: true, ..BASE },
    Scenario { name: "fixed-tpm", time_bar: 1.05, refused_bar: 0.05, fixed: true, ..TPM },
];

/// A draw of the standard normal distribution.
fn normal(rng: &mut Rng) -> f64 {
    let (u, v) = (1.0 - rng.f64(), rng.f64());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

fn log_normal(rng: &mut Rng, mu: f64, sigma: f64) -> f64 {
    (mu + sigma * normal(rng)).exp()
}

fn uniform(rng: &mut Rng, from: f64, to: f64) -> f64 {
    from + (to - from) * rng.f64()
}

impl Scenario {
    /// The jobs of a seed.
    pub fn jobs(&self, seed: u64) -> Vec<Job> {
        let mut rng = Rng::with_seed(seed);
        let mut job = |index: usize| {
            let mut prompt = log_normal(&mut rng, self.prompt.ln(), 0.6).max(20.0).floor();
            if self.mixed {
                prompt = [50.0, 400.0, 3_000.0, 20_000.0][index % 4];
            }
            let output = log_normal(&mut rng, self.output.ln(), 0.7).clamp(5.0, self.max_tokens).floor();
            let service = match self.service {
                Service::Tokens(rate) => (0.3 + output / rate).clamp(0.5, 20.0) * uniform(&mut rng, 0.8, 1.25),
                Service::LogNormal(mean, sigma) => log_normal(&mut rng, mean.ln() - sigma * sigma / 2.0, sigma),
            };
            let estimate = (prompt * uniform(&mut rng, 0.85, 1.15) + self.max_tokens) * self.estimates;
            let service = Duration::try_from_secs_f64(service).unwrap_or_default();
            Job { tokens: prompt + self.max_tokens, estimate, service }
        };
        (0..self.jobs).map(&mut job).collect()
    }

    /// A server of this kind.
    pub fn provider(&self, seed: u64) -> Provider {
        let limit = |size: Size, shown: Option<f64>| {
            let mut limit = Limit::new(size.cap, size.rate);
            if let Some(shown) = shown {
                limit = limit.shown_as(shown);
            }
            if self.fixed { limit.fixed_window() } else { limit }
        };
        let mut requests = limit(self.requests, self.requests_shown);
        if let Some(level) = self.requests_at {
            requests = requests.starting_at(level);
        }
        let mut builder = Provider::builder()
            .requests(requests)
            .tokens(limit(self.tokens, self.tokens_shown))
            .charge_refused(self.charge)
            .rate_headers(self.headers)
            .wording(if self.bare { Wording::Bare } else { Wording::OpenAi })
            .hints(if self.hints { Hints::Headers } else { Hints::Neither })
            .hint_unit(HintUnit::Milliseconds)
            .latency(Latency::internet())
            .seed(seed);
        if let Some(hidden) = self.hidden {
            builder = builder.hidden(Limit::new(hidden.cap, hidden.rate));
        }
        if let Some(calls) = self.at_once {
            builder = builder.at_once(calls);
        }
        if self.foreign > 0.0 {
            builder = builder.foreign(self.foreign, 300.0);
        }
        builder.build()
    }
}
