//! What a success teaches a key, what any other answer that is no 429, and what a call gives back.

use tokio::time::Instant;

use super::{Controller, Ticket};
use crate::classify::{RateLimitSnapshot, Unit};
use crate::quota::controller::call_info::UNITS;
use crate::quota::controller::on_headers::Figures;
use crate::wait_queue::AdmissionPolicy;

impl Controller {
    /// A 2xx: what its headers show, and that it was let in. The permit stays taken until the body ends.
    pub(crate) fn on_success(&mut self, now: Instant, ticket: &Ticket, shown: Option<&RateLimitSnapshot>) {
        self.on_accepted(now, ticket, shown);
        self.on_stream_end(ticket.seq);
    }

    /// A 2xx whose body may hold an error: it does not open a closed key before [`on_stream_end`](Self::on_stream_end).
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

    /// A 2xx whose body is already over.
    pub(crate) fn on_finished(&mut self, now: Instant, ticket: &Ticket, shown: Option<&RateLimitSnapshot>) {
        self.on_success(now, ticket, shown);
        self.release(now, ticket.seq);
    }

    /// An answer that neither succeeds nor throttles: its headers show as much as any other's. The permit stays taken until
    /// the body ends. A call that was rejected unprocessed has taken no tokens.
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
        self.cooldown.back(ticket.seq); // a probe is answered, whoever reads its body
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

    /// A call that was admitted but not sent after all gives back what it took.
    pub(crate) fn on_withdrawn(&mut self, now: Instant, ticket: &Ticket) {
        self.release(now, ticket.seq);
        self.learned_rate.throttled(self.secs(now), self.secs(ticket.sent));
        self.last = self.last.and_then(|last| last.checked_sub(ticket.gap));
        for unit in UNITS {
            self.give_back(unit, ticket.price[unit as usize]);
        }
    }

    /// Whether [`on_usage`](AdmissionPolicy::on_usage) wants to be told what a call has used, and what it was counted for.
    pub(crate) fn wants_usage(&self, ticket: &Ticket) -> Option<f64> {
        let seeded =
            || self.buckets.iter().any(|bucket| bucket.dimension.unit() == Unit::Tokens && bucket.estimate.is_seed());
        let wanted = !ticket.call_info.cost.is_known() || seeded();
        wanted.then_some(ticket.price[Unit::Tokens as usize])
    }
}
