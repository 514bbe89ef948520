//! The calls of a scenario, drawn from a seed.

use std::time::Duration;

use fastrand::Rng;

use super::{Counting, Scenario, Service};
use crate::request::Kind;

/// The standard deviation of the prompts' logarithms, as chats have it.
pub(super) const SPREAD: f64 = 0.6;
/// A text of so many tokens is so much shorter or longer than the average one.
const TEXT: (f64, f64) = (0.85, 1.15);
/// The longest answer of a call that names no longest one.
const LONGEST_OUTPUT: f64 = 4_096.0;

/// One call to be made: what it sends, what the server charges, how long it takes.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// The form of its body.
    pub kind: Kind,
    /// The tokens that its text has by its length.
    pub text: f64,
    /// The most that it wants to have back, if it says so.
    pub max_tokens: Option<f64>,
    /// Tokens charged at admission.
    pub tokens: f64,
    /// Tokens that the answer takes.
    pub output: f64,
    /// How long the server works on it.
    pub service: Duration,
}

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
        (0..self.jobs).map(|index| self.job(index, &mut rng)).collect()
    }

    fn job(&self, index: usize, rng: &mut Rng) -> Job {
        let mut prompt = log_normal(rng, self.prompt.ln(), self.spread).max(20.0).floor();
        if self.mixed {
            prompt = [50.0, 400.0, 3_000.0, 20_000.0][index % 4];
        } else if self.spread == 0.0 {
            prompt = self.prompt;
        }
        let most = self.max_tokens.unwrap_or(LONGEST_OUTPUT);
        let output = log_normal(rng, self.output.ln(), 0.7).clamp(5.0, most).floor();
        let service = match self.service {
            Service::Fixed(seconds) => seconds,
            Service::Tokens(rate) => (0.3 + output / rate).clamp(0.5, 20.0) * uniform(rng, 0.8, 1.25),
            Service::LogNormal(mean, sigma) => log_normal(rng, mean.ln() - sigma * sigma / 2.0, sigma),
        };
        let text = prompt * uniform(rng, TEXT.0, TEXT.1);
        let reserved = self.max_tokens.unwrap_or(0.0);
        let counted = match self.counting {
            Counting::Larger => prompt.max(reserved),
            Counting::Sum => prompt + reserved,
        };
        Job {
            kind: self.kind,
            text,
            max_tokens: self.max_tokens,
            tokens: (counted * self.price).round(),
            output,
            service: Duration::try_from_secs_f64(service).unwrap_or_default(),
        }
    }
}
