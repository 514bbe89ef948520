//! The decision about a call, with the numbers for its response.

use std::time::Duration;

use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::time::seconds;

/// The decision about a call, and the time of its response.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Counts the arrivals from 1.
    pub(crate) number: u64,
    pub(crate) requests: Option<Rate>,
    pub(crate) tokens: Option<Rate>,
    /// When the client gets the response head.
    pub(crate) head_at: Instant,
    pub(crate) outcome: Outcome,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Accepted {
        ends: Instant,
        /// When the client gets the end of a streamed response.
        streamed_until: Option<Instant>,
    },
    Throttled {
        reason: Reason,
        wait: Duration,
    },
}

/// Why a call is throttled, with the numbers for its message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reason {
    Quota,
    Concurrency { at_once: usize },
    Requests(Shortage),
    Tokens(Shortage),
    Hidden(Shortage),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shortage {
    pub(crate) limit: u64,
    pub(crate) used: u64,
    pub(crate) requested: u64,
    /// Whether the message states the limit per day instead of per minute.
    pub(crate) daily: bool,
}

impl Shortage {
    pub(crate) fn of(bucket: &Bucket, requested: f64) -> Self {
        let (limit, used) = (bucket.limit(), bucket.used());
        Self { limit, used, requested: requested as u64, daily: bucket.period() > 3_600.0 }
    }
}

/// The values in the headers of one dimension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    pub(crate) reset: Duration,
}

impl Rate {
    pub(crate) fn of(bucket: &Bucket) -> Self {
        let (limit, remaining) = (bucket.limit(), bucket.remaining());
        Self { limit, remaining, reset: seconds(bucket.reset()) }
    }
}

/// A call in flight: the end of its service, and its number.
pub(crate) type Permit = (Instant, u64);
