//! An estimate of one of the server's buckets: what it holds now, and how fast it refills.
//!
//! The estimate is a token bucket of our own. Each admitted call takes its price from it, and each snapshot corrects it. A
//! snapshot is what one response says of the bucket; snapshots are applied in the order in which their calls were sent.
//!
//! The refill rate is `(limit - remaining) / reset`, because `reset` is the time until the bucket is full. If two snapshots
//! contradict that rate, the server enforces the limit over a shorter window than the limit's name says. The slope between
//! the two snapshots is then the rate. All times are seconds of the controller's clock, all amounts are requests or tokens.

mod pace;
mod taken;
#[cfg(test)]
mod tests;

pub(super) use taken::Taken;

/// How long after a snapshot the use by other clients that it shows is assumed to go on: 20 s.
///
/// A use that stopped would otherwise slow the key down until the next snapshot, which needs a call.
const BELIEF: f64 = 20.0;
/// How long after a call was sent the server takes its snapshot: 50 ms, or when the response comes, if that is sooner.
const ARRIVAL: f64 = 0.05;
/// A rate is read from a snapshot if its `reset` is longer than this: 1 ms.
const RESET_MIN: f64 = 1e-3;
/// A rate is read from a snapshot if at least so much of the bucket is used ...
const USED_MIN: f64 = 1.0;
/// ... and at least this part of the limit. The figures are rounded, so less says little.
const USED_PART: f64 = 0.002;
/// What a newly read rate weighs against all rates before.
const RATE_WEIGHT: f64 = 0.3;
/// A slope is read from two snapshots if `remaining` changed by at least so much ...
const SLOPE_MIN: f64 = 4.0;
/// ... and by at least this part of the limit.
const SLOPE_PART: f64 = 0.005;
/// The use by others is read from two snapshots that are further apart than this: 0.5 s.
const EXTERNAL_APART: f64 = 0.5;
/// What a newly read use by others weighs against all before, if the snapshots are far apart.
const EXTERNAL_WEIGHT: f64 = 0.5;
/// Snapshots closer than this weigh less, in proportion: 5 s.
const EXTERNAL_SPAN: f64 = 5.0;
/// The largest part of the refill that is attributed to others. The rest keeps the key going if that is wrong.
const EXTERNAL_MAX: f64 = 0.95;
/// The debt of a bucket is at most its refill of this time: 60 s.
///
/// A bucket that refills in a day, or never by its own figures, would otherwise hold back calls that take nothing of it.
const DEBT_TIME: f64 = 60.0;
/// How long a bucket explains no 429 after it throttled although it had had time to fill: 60 s.
const DOUBT: f64 = 60.0;

/// What a response says of one bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shown {
    pub(super) limit: f64,
    pub(super) remaining: f64,
    /// Seconds until the bucket is full.
    pub(super) reset: Option<f64>,
}

impl Shown {
    fn used(self) -> f64 {
        self.limit - self.remaining
    }

    /// The refill rate, if enough of the bucket is used to tell it.
    fn rate(self) -> Option<f64> {
        let enough = self.used() >= f64::max(USED_MIN, USED_PART * self.limit);
        self.reset.filter(|reset| enough && *reset > RESET_MIN).map(|reset| self.used() / reset)
    }
}

/// The call that a snapshot belongs to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sent {
    /// Its number in the order of admission, from 1.
    pub(super) seq: u64,
    /// When it was sent.
    pub(super) at: f64,
    /// What had been spent of this bucket's unit by then, this call included.
    pub(super) spent: f64,
    /// How many calls had been sent by then, this one included.
    pub(super) calls: f64,
}

/// The snapshot that the estimate starts from.
#[derive(Debug, Clone, Copy)]
struct Accepted {
    remaining: f64,
    /// When the server took it.
    as_of: f64,
    /// When it was received. `None` if the user configured the limit and no response has shown the bucket yet.
    received: Option<f64>,
    /// The call it belongs to; number 0 if the user configured the limit.
    call: Sent,
    /// When the bucket is full by the server's own figures.
    full_at: Option<f64>,
}

/// What is believed of one bucket.
#[derive(Debug, Clone)]
pub(super) struct BucketEstimate {
    /// What the bucket holds when it is full.
    cap: f64,
    /// The refill a second.
    rate: f64,
    /// What other clients take a second.
    external_rate: f64,
    /// What the bucket held at the time `at`.
    available: f64,
    at: f64,
    accepted: Accepted,
    /// The server enforces the limit over a shorter window than its name says.
    short: bool,
    doubted_until: Option<f64>,
    /// The snapshot that slopes are measured from: `remaining` and `reset`.
    reference: Option<(f64, f64)>,
}

impl BucketEstimate {
    /// A bucket from the first snapshot that shows it.
    pub(super) fn first(now: f64, sent: Sent, spent: f64, window: f64, shown: Shown) -> Self {
        let mut bucket = Self::seeded(now, shown.limit, window);
        if let Some(rate) = shown.rate() {
            bucket.rate = rate;
        }
        bucket.reference = shown.reset.map(|reset| (shown.remaining, reset));
        bucket.set_accepted(now, sent, shown);
        let (lower, _) = bucket.bounds(now, sent, spent, shown.remaining);
        bucket.available = f64::max(lower, bucket.lowest());
        bucket
    }

    /// A bucket of a limit that the user configured. It is full until a snapshot corrects it.
    pub(super) fn seeded(now: f64, limit: f64, window: f64) -> Self {
        let call = Sent { seq: 0, at: now, spent: 0.0, calls: 0.0 };
        Self {
            cap: limit,
            rate: limit / window,
            external_rate: 0.0,
            available: limit,
            at: now,
            accepted: Accepted { remaining: limit, as_of: now, received: None, call, full_at: None },
            short: false,
            doubted_until: None,
            reference: None,
        }
    }

    /// Applies a further snapshot, unless it belongs to a call sent before the accepted one's. Returns the limit before, if
    /// the limit has changed.
    pub(super) fn snapshot(&mut self, now: f64, sent: Sent, spent: f64, shown: Shown) -> Option<f64> {
        if sent.seq <= self.accepted.call.seq {
            return None;
        }
        // The cap of a bucket with a shorter window is computed, and differs a little each time.
        let before = (!self.short).then_some(self.cap);
        let believed = self.level(now);
        let rate = self.read_rate(shown);
        self.read_external_rate(as_of(now, sent), sent.spent, shown.remaining);
        if let Some(rate) = rate {
            self.rate = (1.0 - RATE_WEIGHT) * self.rate + RATE_WEIGHT * rate;
        }
        self.external_rate = f64::min(self.external_rate, EXTERNAL_MAX * self.rate);
        self.cap = match shown.reset {
            Some(reset) if self.short => f64::min(shown.limit, f64::max(1.0, shown.remaining + self.rate * reset)),
            _ => shown.limit,
        };
        self.set_accepted(now, sent, shown);
        let (lower, upper) = self.bounds(now, sent, spent, shown.remaining);
        let available = f64::max(lower, f64::min(upper, believed));
        self.available = f64::max(available, self.lowest());
        before.filter(|before| !self.short && *before != self.cap)
    }

    /// The rate that a snapshot shows. Two snapshots that are far enough apart show it without the limit, as a slope: if that
    /// is less than half of the rate by the limit, the window is shorter than the limit says, and the slope is the rate.
    fn read_rate(&mut self, shown: Shown) -> Option<f64> {
        let rate = shown.rate();
        let Some(reset) = shown.reset else { return rate };
        let (remaining_then, reset_then) = *self.reference.get_or_insert((shown.remaining, reset));
        let (fell, grew) = (remaining_then - shown.remaining, reset - reset_then);
        if fell.abs() < f64::max(SLOPE_MIN, SLOPE_PART * shown.limit) || fell * grew <= 0.0 {
            return rate.filter(|_| !self.short);
        }
        let slope = fell / grew;
        let was_short = self.short;
        self.short = rate.is_some_and(|rate| slope < rate / 2.0);
        self.reference = Some((shown.remaining, reset));
        if !self.short {
            return rate;
        }
        if !was_short {
            self.rate = slope;
            self.external_rate = 0.0; // it was computed with a wrong rate
        }
        Some(slope)
    }

    /// Corrects the use by others: the bucket holds less than the accepted snapshot, the refill and our own calls predict.
    fn read_external_rate(&mut self, as_of: f64, spent: f64, remaining: f64) {
        let passed = as_of - self.accepted.as_of;
        if passed <= EXTERNAL_APART {
            return;
        }
        let refilled = self.accepted.remaining + (self.rate - self.external_rate) * passed;
        let predicted = f64::min(self.cap, refilled) - f64::max(0.0, spent - self.accepted.call.spent);
        // A bucket that was full in between has lost refill, which says nothing of others.
        if (predicted - self.cap).abs() > 1.0 {
            let weight = EXTERNAL_WEIGHT * f64::min(1.0, passed / EXTERNAL_SPAN);
            self.external_rate = f64::max(0.0, self.external_rate + weight * (predicted - remaining) / passed);
        }
    }

    fn set_accepted(&mut self, now: f64, sent: Sent, shown: Shown) {
        let as_of = as_of(now, sent);
        let full_at = as_of + shown.reset.unwrap_or_else(|| shown.used() / self.rate);
        self.accepted =
            Accepted { remaining: shown.remaining, as_of, received: Some(now), call: sent, full_at: Some(full_at) };
        self.at = now;
    }

    /// The least and the most that the bucket can hold now, by the accepted snapshot and what was `spent` since. The two
    /// differ if the bucket was full in between: what it lost then depends on when the calls went.
    fn bounds(&self, now: f64, sent: Sent, spent: f64, remaining: f64) -> (f64, f64) {
        // Negative only if a call gave back what it had taken.
        let since = f64::max(0.0, spent - sent.spent);
        let as_of = self.accepted.as_of;
        (self.filled(remaining, as_of, now) - since, self.filled(remaining - since, as_of, now))
    }

    /// What a bucket that held `available` at a time holds now. Others take their part for [`BELIEF`] after the snapshot.
    fn filled(&self, available: f64, at: f64, now: f64) -> f64 {
        let now = f64::max(now, at);
        let believed_until = self.accepted.received.map_or(at, |received| f64::max(at, received + BELIEF));
        let believed = f64::min(now, believed_until);
        let beside_others = f64::max(0.0, self.rate - self.external_rate) * (believed - at);
        f64::min(self.cap, available + beside_others + self.rate * (now - believed))
    }

    /// The lowest level: minus one bucket, or minus the refill of [`DEBT_TIME`] if that is less.
    fn lowest(&self) -> f64 {
        -f64::min(self.cap, DEBT_TIME * self.rate)
    }

    /// What the bucket holds now. It is negative, down to the [lowest level](Self::lowest), if more was sent than it held.
    pub(super) fn level(&self, now: f64) -> f64 {
        self.filled(self.available, self.at, now)
    }

    /// What a call of this price takes: at most the cap, because no call that the server accepts takes more.
    pub(super) fn cost(&self, price: f64) -> f64 {
        f64::min(price, self.cap)
    }

    /// Takes the price of an admitted call.
    pub(super) fn spend(&mut self, now: f64, price: f64) {
        self.available = f64::max(self.level(now) - self.cost(price), self.lowest());
        self.at = now;
    }

    /// Returns what a call did not take: it was withdrawn, rejected unprocessed, or used less than its price.
    pub(super) fn give_back(&mut self, price: f64) {
        self.available = f64::min(f64::max(self.available + price, self.lowest()), self.cap);
    }

    /// It throttled although the estimate held enough: half of the refill that was ours is attributed to others.
    pub(super) fn share(&mut self) {
        let more = f64::min(EXTERNAL_MAX * self.rate, f64::midpoint(self.external_rate, self.rate));
        self.external_rate = f64::max(self.external_rate, more);
    }

    /// Makes the bucket explain no 429 for [`DOUBT`].
    pub(super) fn doubt(&mut self, now: f64) {
        self.doubted_until = Some(now + DOUBT);
    }

    pub(super) fn doubted(&self, now: f64) -> bool {
        self.doubted_until.is_some_and(|until| now < until)
    }

    /// Whether the bucket is full by the server's own figures.
    pub(super) fn full_by(&self, now: f64) -> bool {
        self.accepted.full_at.is_some_and(|full_at| now >= full_at)
    }

    /// The number of the call whose snapshot was accepted; 0 before the first.
    pub(super) fn snap(&self) -> u64 {
        self.accepted.call.seq
    }

    /// Seconds in which the empty bucket fills.
    pub(super) fn fills_in(&self) -> f64 {
        self.cap / self.rate
    }

    /// What the bucket holds when it is full.
    pub(super) fn cap(&self) -> f64 {
        self.cap
    }

    /// Whether the user configured the limit and no snapshot has shown it yet.
    pub(super) fn is_seed(&self) -> bool {
        self.accepted.call.seq == 0
    }

    /// The cap and the use by others.
    #[cfg(test)]
    pub(super) fn figures(&self) -> (f64, f64) {
        (self.cap, self.external_rate)
    }
}

/// When the server took the snapshot that the response to a call carries.
fn as_of(now: f64, sent: Sent) -> f64 {
    f64::min(now, sent.at + ARRIVAL)
}
