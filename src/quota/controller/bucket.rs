//! One bucket of the server's, as far as its headers tell: what it holds now, and how fast it fills.
//!
//! A *running bucket*, put right by each snapshot in dispatch order. `rate = (limit - remaining) / reset`, since `reset`
//! is the time until the bucket is full; where two snapshots contradict that, the bucket is enforced over a shorter
//! window than its limit says, and the slope between them is the rate. Times are seconds of the controller's own clock.

/// Others' use of the bucket is believed for so long after the snapshot that showed it: 20 s.
const BELIEF: f64 = 20.0;
/// The bucket is spread over at most this long when it is full: 5 s.
const SPREAD_MAX: f64 = 5.0;
/// ... and over at most this part of its window: a twelfth.
const SPREAD_PART: f64 = 12.0;
/// At least four fifths of what a bucket holds is spent as if nobody else took of it. A fixed window does not refill before it
/// ends, which looks as if others took all of the refill.
const OURS_LEAST: f64 = 0.8;
/// A snapshot is taken when the call reaches the server: this long after it was sent, 50 ms.
const ARRIVAL: f64 = 0.05;
/// What calls have taken of a bucket is known well when that is so much of it: a quarter. The figures are rounded, and some
/// are late.
const TELLING: f64 = 0.25;
/// The margin of a call is at most what flows in within this time: 5 s.
const MARGIN_TIME: f64 = 5.0;
/// What is owed of a bucket is at most what flows in within this time: a minute. A bucket that fills in a day, or never by its
/// own figures, would otherwise hold back calls that take nothing of it.
const DEBT_TIME: f64 = 60.0;
/// How long a bucket that throttled although it had had time to fill explains nothing: a minute.
const DOUBT: f64 = 60.0;

/// What a response says of one bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shown {
    pub(super) limit: f64,
    pub(super) remaining: f64,
    pub(super) reset: Option<f64>,
}

/// Which call a snapshot belongs to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sent {
    pub(super) seq: u64,
    pub(super) at: f64,
    /// What had been spent of this bucket's unit, this call included.
    pub(super) spent: f64,
    /// How many calls had been sent, this one included.
    pub(super) calls: f64,
}

/// What calls have taken between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Taken {
    /// What they took of the bucket.
    pub(super) taken: f64,
    /// What they were counted for.
    pub(super) counted: f64,
    /// How many they were.
    pub(super) calls: f64,
    /// How much that tells: 1 and more is well known.
    pub(super) weight: f64,
}

#[derive(Debug, Clone)]
pub(super) struct BucketEstimate {
    /// What the bucket really holds when full.
    cap: f64,
    rate: f64,
    /// What others take, a second.
    external_rate: f64,
    available: f64,
    at: f64,
    /// The accepted snapshot: what it said, when it was true, when it came, whose it was, what had been spent by then.
    base: f64,
    as_of: f64,
    told: f64,
    snap: u64,
    spent_then: f64,
    calls_then: f64,
    full_at: f64,
    /// The window is shorter than the limit says.
    short: bool,
    doubted_until: f64,
    /// What the slope is measured from: remaining, reset; not a number before the first.
    reference: (f64, f64),
    /// Over how long it is spread when it is full.
    spread: f64,
}

impl BucketEstimate {
    /// A bucket that a snapshot shows for the first time.
    pub(super) fn first(now: f64, sent: Sent, spent: f64, window: f64, shown: Shown) -> Self {
        let mut level = Self::blank(now, shown.limit, window);
        level.rate = f64::NAN; // nothing believed yet: the snapshot sets it
        level.accept(now, sent, spent, window, shown, true);
        level
    }

    /// A bucket that the user told us of: full, until headers correct it.
    pub(super) fn seeded(now: f64, limit: f64, window: f64) -> Self {
        Self::blank(now, limit, window)
    }

    fn blank(now: f64, limit: f64, window: f64) -> Self {
        Self {
            cap: limit,
            rate: limit / window,
            external_rate: 0.0,
            available: limit,
            at: now,
            base: limit,
            as_of: now,
            told: f64::NEG_INFINITY,
            snap: 0,
            spent_then: 0.0,
            calls_then: 0.0,
            full_at: f64::INFINITY,
            short: false,
            doubted_until: f64::NEG_INFINITY,
            reference: (f64::NAN, f64::NAN),
            spread: spread(limit, limit / window),
        }
    }

    /// A further snapshot; one of an earlier call than the accepted one changes nothing. Tells what the limit was before,
    /// if that has changed.
    pub(super) fn snapshot(&mut self, now: f64, sent: Sent, spent: f64, window: f64, shown: Shown) -> Option<f64> {
        if sent.seq <= self.snap {
            return None;
        }
        // A bucket that is enforced over a shorter window holds less than the limit says, and another amount each time.
        let before = (!self.short).then_some(self.cap);
        self.accept(now, sent, spent, window, shown, false);
        before.filter(|before| !self.short && *before != self.cap)
    }

    /// What was taken of it between the accepted snapshot and this one, where that can be told.
    pub(super) fn taken(&self, now: f64, sent: Sent, shown: Shown) -> Option<Taken> {
        if sent.seq <= self.snap || shown.reset.is_none() {
            return None; // of before, or with a rate that is a guess
        }
        let passed = f64::min(now, sent.at + ARRIVAL) - self.as_of;
        let available = self.base + self.rate * passed;
        if available > self.cap {
            return None; // what flowed over would show as too little
        }
        let before = Sent { spent: self.spent_then, calls: self.calls_then, ..sent };
        taken_between(available, before, sent, self.cap, shown.remaining)
    }

    /// The same for the first snapshot of a key, as if its bucket had been full before its first call. Earlier calls of
    /// other processes show as taken by this key's: what is told is an upper bound.
    pub(super) fn taken_since_full(sent: Sent, shown: Shown) -> Option<Taken> {
        shown.reset?;
        let before = Sent { spent: 0.0, calls: 0.0, ..sent };
        taken_between(shown.limit, before, sent, shown.limit, shown.remaining)
    }

    /// Which call's snapshot was accepted; 0 before the first.
    pub(super) fn snap(&self) -> u64 {
        self.snap
    }

    /// Seconds in which it fills when it is empty.
    pub(super) fn fills_in(&self) -> f64 {
        self.cap / self.rate
    }

    /// What it holds when full.
    pub(super) fn cap(&self) -> f64 {
        self.cap
    }

    /// Whether only the user has spoken of this bucket, and no header yet.
    pub(super) fn is_seed(&self) -> bool {
        self.snap == 0
    }

    fn accept(&mut self, now: f64, sent: Sent, spent: f64, window: f64, shown: Shown, first: bool) {
        let Shown { limit, remaining, reset } = shown;
        let before = (self.cap, self.rate);
        let believed = self.level(now);
        let as_of = f64::min(now, sent.at + ARRIVAL);
        let used = limit - remaining;
        let mut rate =
            reset.filter(|reset| *reset > 1e-3 && used >= f64::max(1.0, 0.002 * limit)).map(|reset| used / reset);
        if let Some(reset) = reset {
            if self.reference.0.is_nan() {
                self.reference = (remaining, reset);
            }
            let (was_remaining, was_reset) = self.reference;
            let (fell, grew) = (was_remaining - remaining, reset - was_reset);
            if fell.abs() >= f64::max(4.0, 0.005 * limit) && fell * grew > 0.0 {
                // Two snapshots far enough apart: their slope needs no cap.
                let slope = fell / grew;
                let was = self.short;
                self.short = rate.is_some_and(|rate| slope < rate / 2.0);
                self.reference = (remaining, reset);
                if self.short {
                    rate = Some(slope);
                    if !was {
                        self.rate = slope;
                        self.external_rate = 0.0; // what was believed of others came from a wrong rate
                    }
                }
            } else if self.short {
                rate = None;
            }
        }
        let passed = as_of - self.as_of;
        if !first && passed > 0.5 {
            let predicted = f64::min(self.cap, self.base + (self.rate - self.external_rate) * passed)
                - f64::max(0.0, sent.spent - self.spent_then);
            if (predicted - self.cap).abs() > 1.0 {
                let weight = 0.5 * f64::min(1.0, passed / 5.0);
                self.external_rate = f64::max(0.0, self.external_rate + weight * (predicted - remaining) / passed);
            }
        }
        self.rate = match rate {
            Some(rate) if self.rate.is_nan() => rate,
            Some(rate) => 0.7 * self.rate + 0.3 * rate,
            None if self.rate.is_nan() => limit / window,
            None => self.rate,
        };
        self.external_rate = f64::min(self.external_rate, 0.95 * self.rate);
        self.cap = match reset {
            Some(reset) if self.short => f64::min(limit, f64::max(1.0, remaining + self.rate * reset)),
            _ => limit,
        };
        if before != (self.cap, self.rate) {
            self.spread = spread(self.cap, self.rate);
        }
        (self.base, self.as_of, self.told, self.snap) = (remaining, as_of, now, sent.seq);
        (self.spent_then, self.calls_then) = (sent.spent, sent.calls);
        self.full_at = as_of + reset.unwrap_or_else(|| used / self.rate);
        // Less than nothing only where a call in between gave back what it took.
        let since = f64::max(0.0, spent - sent.spent);
        // If the bucket was full in between, what flowed over depends on when the calls went. The snapshot then only bounds
        // what it holds: all was spent at the end, or at the beginning.
        let lower = self.filled(remaining, as_of, now) - since;
        let upper = self.filled(remaining - since, as_of, now);
        self.available =
            f64::max(if first { lower } else { f64::max(lower, f64::min(upper, believed)) }, self.lowest());
        self.at = now;
    }

    fn filled(&self, available: f64, at: f64, now: f64) -> f64 {
        let now = f64::max(now, at);
        let believed = f64::min(now, f64::max(at, self.told + BELIEF));
        let others = f64::max(0.0, self.rate - self.external_rate) * (believed - at);
        f64::min(self.cap, available + others + self.rate * (now - believed))
    }

    /// The lowest level: minus one bucket, or minus what flows in within [`DEBT_TIME`] where that is less.
    fn lowest(&self) -> f64 {
        -f64::min(self.cap, DEBT_TIME * self.rate)
    }

    /// What the bucket holds; less than nothing when more was sent than it held, within [bounds](Self::lowest).
    pub(super) fn level(&self, now: f64) -> f64 {
        self.filled(self.available, self.at, now)
    }

    /// Refill a second that is ours.
    fn net(&self) -> f64 {
        f64::max(self.rate - self.external_rate, 0.05 * self.rate)
    }

    /// Seconds until the bucket, at this [`level`](Self::level), holds so much.
    pub(super) fn wait_for(&self, now: f64, level: f64, need: f64) -> f64 {
        let missing = need - level;
        if missing <= 0.0 {
            return 0.0;
        }
        let believed = f64::max(0.0, self.told + BELIEF - now);
        let wait = missing / self.net();
        if wait <= believed { wait } else { believed + f64::max(0.0, missing - self.net() * believed) / self.rate }
    }

    /// What a call of this price takes: never more than the bucket holds, since no call that is let in takes more.
    pub(super) fn cost(&self, price: f64) -> f64 {
        f64::min(price, self.cap)
    }

    /// Seconds until the bucket holds the price of a call if nothing is owed and nobody else takes of it: how long the
    /// server's own figures make such a call wait at least.
    pub(super) fn shortest_wait(&self, level: f64, price: f64) -> f64 {
        f64::max(0.0, self.cost(price) - f64::max(0.0, level)) / self.rate
    }

    /// Seconds between calls of this price at this level, so that a full bucket is not sent in one burst. At most the time
    /// in which an empty bucket fills. Others who take a part of the refill take the same part of what the bucket holds, up to
    /// [a fifth](OURS_LEAST).
    pub(super) fn gap(&self, level: f64, price: f64) -> f64 {
        let ours = f64::max(OURS_LEAST, self.net() / self.rate) * f64::max(0.0, level);
        let gap = self.cost(price) * self.spread / (self.net() * self.spread + ours);
        f64::min(gap, self.cap / self.rate)
    }

    /// What the bucket should hold for a call of this price: its cost and a margin, since the figures are rounded and
    /// others take from it, too. A call larger than the bucket passes when it is full.
    pub(super) fn need(&self, price: f64, is_requests: bool) -> f64 {
        let cost = self.cost(price);
        // Less than what flows in within a few seconds: a request of a bucket that fills in a day is worth minutes.
        let margin = if is_requests { f64::min(1.0, 0.02 * self.cap) } else { 0.04 * cost };
        let margin = f64::min(margin, MARGIN_TIME * self.rate);
        let shared = if self.external_rate > 0.0 { 2.0 * self.external_rate / self.rate } else { 0.0 };
        f64::min(self.cap, cost + margin * (1.0 + shared))
    }

    pub(super) fn spend(&mut self, now: f64, price: f64) {
        self.available = f64::max(self.level(now) - self.cost(price), self.lowest());
        self.at = now;
    }

    /// A call that took less than its price, or nothing: it was not sent after all, or was rejected unprocessed.
    pub(super) fn give_back(&mut self, price: f64) {
        self.available = f64::min(f64::max(self.available + price, self.lowest()), self.cap);
    }

    /// It throttled although, by its own figures, it held enough: others take from it.
    pub(super) fn share(&mut self) {
        self.external_rate =
            f64::max(self.external_rate, f64::min(0.95 * self.rate, f64::midpoint(self.external_rate, self.rate)));
    }

    pub(super) fn doubt(&mut self, now: f64) {
        self.doubted_until = now + DOUBT;
    }

    pub(super) fn doubted(&self, now: f64) -> bool {
        now < self.doubted_until
    }

    /// Whether, by the server's own figures, it has had time to fill.
    pub(super) fn full_by(&self, now: f64) -> bool {
        now >= self.full_at
    }

    /// Its cap and others' use.
    #[cfg(test)]
    pub(super) fn figures(&self) -> (f64, f64) {
        (self.cap, self.external_rate)
    }

    /// The fastest rate that this bucket can explain, twice over: what lies above it is no limit worth keeping.
    pub(super) fn fastest(&self) -> f64 {
        2.0 * self.rate + self.cap / self.spread
    }
}

/// What the calls between two snapshots took of a bucket that held so much. A debt shows as too little; less than nothing
/// means that calls waited on their way to the server.
fn taken_between(available: f64, before: Sent, sent: Sent, cap: f64, remaining: f64) -> Option<Taken> {
    let (counted, calls) = (sent.spent - before.spent, sent.calls - before.calls);
    let taken = available - remaining;
    let told = remaining > 0.0 && taken > 0.0 && calls > 0.0;
    told.then(|| Taken { taken, counted, calls, weight: f64::max(counted, taken) / (TELLING * cap) })
}

/// Over how long a full bucket is spread.
fn spread(cap: f64, rate: f64) -> f64 {
    f64::min(SPREAD_MAX, cap / (rate * SPREAD_PART))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_takes_nothing_waits_a_minute_at_most_for_what_others_owe() {
        let sent = Sent { seq: 1, at: 0.0, spent: 0.0, calls: 1.0 };
        for (limit, reset) in [(60_000.0, 60.0), (1e9, 86_400.0), (1e308, 1e308)] {
            let shown = Shown { limit, remaining: 0.0, reset: Some(reset) };
            let mut level = BucketEstimate::first(0.0, sent, 0.0, 60.0, shown);
            for _ in 0..3 {
                level.spend(0.0, 4e9);
            }
            let wait = level.wait_for(0.0, level.level(0.0), level.need(0.0, false));
            assert!((59.0..=61.0).contains(&wait), "{limit} in {reset} s: {wait}");
        }
    }

    const MINUTE: f64 = 60.0;

    /// A bucket of 60,000 a minute.
    fn shown(remaining: f64) -> Shown {
        let limit = 60_000.0;
        Shown { limit, remaining, reset: Some((limit - remaining) / 1_000.0) }
    }

    fn sent(seq: u64, at: f64, spent: f64) -> Sent {
        Sent { seq, at, spent, calls: seq as f64 }
    }

    /// A call sent at 10 s has shown 20,000 remaining, 50,000 spent by then.
    fn level() -> BucketEstimate {
        BucketEstimate::first(10.0, sent(5, 10.0, 50_000.0), 50_000.0, MINUTE, shown(20_000.0))
    }

    #[test]
    fn what_calls_have_taken_is_what_is_missing_and_what_has_flowed_in() {
        // Two seconds later 4,000 less, and 2,000 had flowed in: 6,000 taken for what was counted as 12,000.
        let taken = level().taken(13.0, sent(9, 12.0, 62_000.0), shown(16_000.0)).unwrap();
        assert!((taken.taken / taken.counted - 0.5).abs() < 0.01, "{taken:?}");
        assert!((taken.weight - 12_000.0 / 15_000.0).abs() < 1e-9, "{taken:?}");
        assert_eq!(taken.calls, 4.0);
    }

    /// A bucket of 8 that gets 8 a second and shows a limit of 480. Two snapshots have shown that.
    fn short_bucket() -> BucketEstimate {
        let shown = |remaining: f64| Shown { limit: 480.0, remaining, reset: Some((8.0 - remaining) / 8.0) };
        let mut level = BucketEstimate::first(0.0, sent(1, 0.0, 1.0), 1.0, MINUTE, shown(7.0));
        level.snapshot(1.0, sent(2, 1.0, 2.0), 2.0, MINUTE, shown(1.0));
        assert!((level.cap() - 8.0).abs() < 1.0 && (level.rate - 8.0).abs() < 1.0, "{level:?}");
        level
    }

    #[test]
    fn a_late_snapshot_of_a_short_bucket_does_not_charge_the_calls_since_to_one_bucket() {
        let mut level = short_bucket();
        let mut spent = 2.0;
        // 8 calls a second are what the bucket gets: it holds what it held.
        for call in 0..24 {
            level.spend(1.0 + f64::from(call) / 8.0, 1.0);
            spent += 1.0;
        }
        let before = level.level(4.0);
        let shown = Shown { limit: 480.0, remaining: 1.0, reset: Some(7.0 / 8.0) };
        level.snapshot(4.0, sent(3, 1.0, 3.0), spent, MINUTE, shown);
        assert!((level.level(4.0) - before).abs() < 1.0, "{} was {before}", level.level(4.0));
    }

    #[test]
    fn a_late_snapshot_does_not_fill_a_bucket_that_was_just_emptied() {
        let mut level = short_bucket();
        for _ in 0..8 {
            level.spend(4.0, 1.0);
        }
        let shown = Shown { limit: 480.0, remaining: 1.0, reset: Some(7.0 / 8.0) };
        level.snapshot(4.0, sent(3, 1.0, 3.0), 11.0, MINUTE, shown);
        assert!(level.level(4.0) < 1.0, "{}", level.level(4.0));
    }

    #[test]
    fn others_who_take_of_the_refill_take_the_same_part_of_what_the_bucket_holds() {
        let mut level = level();
        let alone = level.gap(20_000.0, 100.0);
        level.external_rate = level.rate / 10.0;
        assert!((level.gap(20_000.0, 100.0) / alone - 10.0 / 9.0).abs() < 1e-9);
    }

    #[test]
    fn what_others_take_shows_as_taken_too() {
        let alone = level().taken(13.0, sent(9, 12.0, 62_000.0), shown(16_000.0)).unwrap();
        let beside = level().taken(13.0, sent(9, 12.0, 62_000.0), shown(10_000.0)).unwrap();
        assert!(beside.taken > alone.taken);
    }

    #[test]
    fn where_the_figures_do_not_tell_nothing_is_learned() {
        let told = |at: f64, seq, spent, said| level().taken(at + 1.0, sent(seq, at, spent), said);
        assert!(told(12.0, 9, 62_000.0, shown(16_000.0)).is_some());
        assert_eq!(told(12.0, 5, 62_000.0, shown(16_000.0)), None, "an earlier call's");
        assert_eq!(told(60.0, 9, 62_000.0, shown(58_000.0)), None, "it has been full, or nearly");
        assert_eq!(told(12.0, 9, 62_000.0, shown(0.0)), None, "it may be in debt");
        assert_eq!(told(12.0, 9, 62_000.0, shown(30_000.0)), None, "there is more than can have flowed in");
        let no_reset = Shown { reset: None, ..shown(16_000.0) };
        assert_eq!(told(12.0, 9, 62_000.0, no_reset), None, "the rate is a guess");
        let seed = BucketEstimate::seeded(0.0, 60_000.0, MINUTE);
        assert_eq!(seed.taken(13.0, sent(9, 12.0, 62_000.0), shown(16_000.0)), None, "no header has spoken before");
    }
}
