//! The scenarios: what the server enforces, what it says, and the jobs that are all submitted at once.

mod jobs;
mod list;

use std::time::Duration;

use tower_429_testing::{Charge, HintUnit, Hints, Latency, Limit, Provider, RateHeaders, Wording};

use crate::request::Kind;

pub use jobs::Job;
pub use list::{COLD, MAIN, RAMP, all, named};

/// A bucket's capacity and its refill a second.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// What it holds when full.
    pub cap: f64,
    /// What it gets a second.
    pub rate: f64,
}

impl Size {
    const fn minute(n: f64) -> Option<Self> {
        Some(Self { cap: n, rate: n / 60.0 })
    }
}

/// How long a call takes.
#[derive(Debug, Clone, Copy)]
pub enum Service {
    /// The same for each, in seconds.
    Fixed(f64),
    /// By its output tokens, at so many a second.
    Tokens(f64),
    /// Log-normal: mean seconds, sigma.
    LogNormal(f64, f64),
}

/// How the server counts a call's prompt and its `max_tokens`.
#[derive(Debug, Clone, Copy)]
pub enum Counting {
    /// The larger of the two, as OpenAI documents it.
    Larger,
    /// Their sum, as servers do that reserve what may come back.
    Sum,
}

/// What happens in the middle of a run.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// All limits times a factor.
    Cut(Duration, f64),
    /// Another cap on calls at once.
    Cap(Duration, usize),
}

/// How far away the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// 10 to 40 ms each way, 429s back after 30 to 80 ms.
    Near,
    /// 0.3 s each way, 429s included: 0.6 s from request to answer.
    Far,
}

impl Distance {
    /// The way there and back.
    pub fn latency(self) -> Latency {
        let way = Duration::from_millis(285)..Duration::from_millis(315);
        match self {
            Self::Near => Latency::internet(),
            Self::Far => Latency { request: way.clone(), throttle: way.clone(), answer: way },
        }
    }
}

/// The longest time that is still good.
#[derive(Debug, Clone, Copy)]
pub enum TimeBar {
    /// So many times the oracle's.
    Ideal(f64),
    /// So many seconds.
    Seconds(f64),
}

/// A server, and the work that is brought to it. `name` and the bars come first: they are what the table shows.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the fields are the columns of a table, named as in the field")]
pub struct Scenario {
    pub name: &'static str,
    pub time_bar: TimeBar,
    /// 429s per success that are still good.
    pub throttled_bar: f64,
    /// Failed calls of all seeds that are still good.
    pub failed_bar: usize,
    pub jobs: usize,
    pub requests: Option<Size>,
    pub requests_shown: Option<f64>,
    pub requests_at: Option<f64>,
    pub tokens: Option<Size>,
    pub tokens_shown: Option<f64>,
    pub hidden: Option<Size>,
    pub at_once: Option<usize>,
    pub charge: Charge,
    pub headers: RateHeaders,
    pub bare: bool,
    pub hints: Hints,
    pub fixed: bool,
    pub foreign: f64,
    pub change: Option<Change>,
    pub distance: Distance,
    pub processes: usize,
    pub kind: Kind,
    /// The median of the prompts' tokens.
    pub prompt: f64,
    /// The standard deviation of their logarithms; with 0, each prompt has exactly so many.
    pub spread: f64,
    pub max_tokens: Option<f64>,
    pub output: f64,
    pub counting: Counting,
    /// What the server charges for a token.
    pub price: f64,
    pub service: Service,
    pub mixed: bool,
}

impl Scenario {
    /// What the table calls it.
    pub fn label(&self) -> String {
        match self.distance {
            Distance::Near => self.name.to_owned(),
            Distance::Far => format!("{}-far", self.name),
        }
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
        let mut builder = Provider::builder()
            .charge_throttled(self.charge)
            .rate_headers(self.headers)
            .wording(if self.bare { Wording::Bare } else { Wording::OpenAi })
            .hints(self.hints)
            .hint_unit(HintUnit::Milliseconds)
            .latency(self.distance.latency())
            .seed(seed);
        if let Some(size) = self.requests {
            let requests = limit(size, self.requests_shown);
            builder = builder.requests(self.requests_at.map_or(requests, |level| requests.starting_at(level)));
        }
        if let Some(size) = self.tokens {
            builder = builder.tokens(limit(size, self.tokens_shown));
        }
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
