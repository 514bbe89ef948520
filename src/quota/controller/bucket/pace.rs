//! When calls may take from a bucket: how long one waits, and how far apart they go.

use super::{BELIEF, BucketEstimate};

/// The longest time over which a full bucket is spread: 5 s.
const SPREAD_MAX: f64 = 5.0;
/// A full bucket is spread over at most its window divided by this.
const SPREAD_PART: f64 = 12.0;
/// The least part of the bucket's content that is spent as if no others took of it.
///
/// A fixed window does not refill before it ends, which looks as if others took the whole refill.
const OURS_LEAST: f64 = 0.8;
/// The least part of the refill that is ours. A key that leaves all to others would never find out that they are gone.
const NET_LEAST: f64 = 0.05;
/// The margin of a call on a bucket of requests, at most: one request ...
const REQUEST_MARGIN: f64 = 1.0;
/// ... and this part of the cap.
const REQUEST_MARGIN_PART: f64 = 0.02;
/// The margin of a call on a bucket of tokens: this part of its price.
const TOKEN_MARGIN_PART: f64 = 0.04;
/// The margin of a call is at most the refill of this time: 5 s.
const MARGIN_TIME: f64 = 5.0;

impl BucketEstimate {
    /// The refill a second that is ours.
    fn net(&self) -> f64 {
        f64::max(self.rate - self.external_rate, NET_LEAST * self.rate)
    }

    /// Over how many seconds the full bucket is spread.
    fn spread(&self) -> f64 {
        f64::min(SPREAD_MAX, self.cap / (self.rate * SPREAD_PART))
    }

    /// Seconds until the bucket, at this [`level`](Self::level), holds `need`.
    pub(in super::super) fn wait_for(&self, now: f64, level: f64, need: f64) -> f64 {
        let missing = need - level;
        if missing <= 0.0 {
            return 0.0;
        }
        let believed = self.accepted.received.map_or(0.0, |received| f64::max(0.0, received + BELIEF - now));
        let wait = missing / self.net();
        if wait <= believed { wait } else { believed + f64::max(0.0, missing - self.net() * believed) / self.rate }
    }

    /// Seconds until the bucket holds the price of a call if nothing is owed and nobody else takes of it. By the server's own
    /// figures, such a call waits at least so long.
    pub(in super::super) fn shortest_wait(&self, level: f64, price: f64) -> f64 {
        f64::max(0.0, self.cost(price) - f64::max(0.0, level)) / self.rate
    }

    /// Seconds between calls of this price at this level, so that a full bucket is not sent in one burst. At most the time in
    /// which the empty bucket fills.
    ///
    /// Others who take a part of the refill take the same part of what the bucket holds, up to
    /// [a fifth](OURS_LEAST).
    pub(in super::super) fn gap(&self, level: f64, price: f64) -> f64 {
        let ours = f64::max(OURS_LEAST, self.net() / self.rate) * f64::max(0.0, level);
        let gap = self.cost(price) * self.spread() / (self.net() * self.spread() + ours);
        f64::min(gap, self.cap / self.rate)
    }

    /// What the bucket has to hold for a call of this price: its cost and a margin, because the figures are rounded and others
    /// take from the bucket, too. At most the cap, so that a call larger than the bucket goes when it is full.
    pub(in super::super) fn need(&self, price: f64, is_requests: bool) -> f64 {
        let cost = self.cost(price);
        let margin = if is_requests {
            f64::min(REQUEST_MARGIN, REQUEST_MARGIN_PART * self.cap)
        } else {
            TOKEN_MARGIN_PART * cost
        };
        // One request of a bucket that fills in a day takes minutes to refill, and a margin is not worth that.
        let margin = f64::min(margin, MARGIN_TIME * self.rate);
        let shared = if self.external_rate > 0.0 { 2.0 * self.external_rate / self.rate } else { 0.0 };
        f64::min(self.cap, cost + margin * (1.0 + shared))
    }
}
