//! The effects of a success, of an answer that is neither a success nor a 429, and of a call that was not sent.

use tokio::time::Instant;

use super::{Controller, Ticket};
use crate::classify::{RateLimitSnapshot, Unit};
use crate::quota::controller::call_info::UNITS;
use crate::quota::controller::on_headers::Figures;
use crate::wait_queue::AdmissionPolicy;

impl Controller {
    /// A success. The permit stays taken until the body ends.
    pub(crate) fn on_success(&mut self, now: Instant, ticket: &Ticket, shown: Option<&RateLimitSnapshot>) {
        self.on_accepted(now, ticket, shown);
        self.on_stream_end(ticket.seq);
    }

    /// A success whose body may contain an error. It opens a closed key only in [`on_stream_end`](Self::on_stream_end).
    pub(crate) fn on_accepted(&mut self, now: Instant, ticket: &Ticket, shown: Option<&RateLimitSnapshot>) {
        self.expire_acks(now);
        self.heard = now;
        if shown.is_some() {
            self.snapshots(self.secs(now), ticket, Figures::of_headers(shown), true);
        }
        self.on_progress();
        self.call_specific.succeeded(now, ticket.seq, ticket.sent, ticket.call_info.throttles);
        self.probes.succeeded();
        self.answered(ticket.seq);
        if self.window.close(ticket.seq) || ticket.flight.above {
            self.window.acked(ticket.flight, true);
        }
        self.window.success(ticket.flight);
    }

    /// A success whose body has already ended.
    pub(crate) fn on_finished(&mut self, now: Instant, ticket: &Ticket, shown: Option<&RateLimitSnapshot>) {
        self.on_success(now, ticket, shown);
        self.release(now, ticket.seq);
    }

    /// An answer that is neither a success nor a 429. Its headers are read, too. The permit stays taken until the body ends. A call
    /// that the server rejected unprocessed gets its tokens back.
    pub(crate) fn on_other_answer(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        unprocessed: bool,
        shown: Option<&RateLimitSnapshot>,
    ) {
        self.expire_acks(now);
        self.heard = now;
        self.on_progress();
        self.cooldown.back(ticket.seq); // the probe is answered, even if nobody reads its body
        let mut ticket = *ticket;
        if unprocessed {
            for unit in [Unit::Tokens, Unit::InputTokens, Unit::OutputTokens] {
                let price = ticket.price[unit as usize];
                self.give_back(unit, price);
                ticket.spent[unit as usize] -= price;
            }
        }
        self.snapshots(self.secs(now), &ticket, Figures::of_headers(shown), false);
    }

    /// An admitted call was not sent. It gives back what it took.
    pub(crate) fn on_withdrawn(&mut self, now: Instant, ticket: &Ticket) {
        self.release(now, ticket.seq);
        self.learned_rate.throttled(self.secs(now), self.secs(ticket.sent));
        self.last = self.last.and_then(|last| last.checked_sub(ticket.gap));
        for unit in UNITS {
            self.give_back(unit, ticket.price[unit as usize]);
        }
    }

    /// Returns the price a call was counted at, if [`on_usage`](AdmissionPolicy::on_usage) needs what it has really used.
    pub(crate) fn wants_usage(&self, ticket: &Ticket) -> Option<f64> {
        let seeded =
            || self.buckets.iter().any(|bucket| bucket.dimension.unit() == Unit::Tokens && bucket.estimate.is_seed());
        let wanted = !ticket.call_info.cost.is_known() || seeded();
        wanted.then_some(ticket.price[Unit::Tokens as usize])
    }
}
