//! Admission: whether a call may be sent now, and what an admitted call takes.

use tokio::time::Instant;

use super::{Controller, IDLE, LATE, NOTHING, TWICE, Ticket};
use crate::classify::Unit;
use crate::quota::controller::call_info::{CallInfo, UNITS};
use crate::quota::controller::cooldown::State;
use crate::time::add;
use crate::wait_queue::{Admission, AdmissionPolicy, Decision, Probe};

impl AdmissionPolicy for Controller {
    type Call = CallInfo;
    type Ticket = Ticket;

    fn on_arrival(&mut self, now: Instant) {
        if self.window.in_flight() > 0 {
            return;
        }
        if !self.learned_rate.is_known() {
            self.last = None; // no call is in flight, so there is no earlier call to keep a gap from
        }
        if now >= self.heard + IDLE {
            self.learned_rate.rested();
            self.taught_by = None;
            self.attribution.rested();
            self.window.rested();
            self.probes.rested();
        }
    }

    fn decide(&mut self, now: Instant, call_info: &CallInfo, ahead: usize) -> Decision {
        self.expire_acks(now);
        match self.cooldown.opens(now, ahead, self.config.max_wait) {
            State::Closed(closed) => return Decision::Closed(closed),
            State::OneOut(at) => {
                return Decision::Blocked(self.window.next_silence().map_or(at, |silence| at.min(silence)));
            }
            State::Probe(closed) if !self.probes.may_go(now) => return Decision::Closed(closed),
            State::Probe(_) => {
                return Decision::Admit(Admission { probe: Some(Probe::Closed), ..Admission::default() });
            }
            State::At(until) if !self.config.pacing.enabled => return Decision::NotBefore(until),
            State::Now if !self.config.pacing.enabled => return Decision::Admit(Admission::default()),
            State::Now | State::At(_) => {}
        }
        let pace = self.pace(now, call_info, ahead);
        let until = self.cooldown.until().unwrap_or(now);
        if pace.own > self.config.max_wait.saturating_add(NOTHING) {
            return self.levels_block(now, ahead, pace.own, until);
        }
        let at = pace.at.max(until);
        if at > now + NOTHING || until > now {
            return Decision::NotBefore(at); // before the window is checked, so that it also answers when a new call may be sent at the earliest
        }
        if self.window.admits(ahead) {
            // A further attempt of the same call shows nothing new. A first attempt shows whether the key is throttled, or only
            // these calls.
            let prefer_first_attempt =
                call_info.throttles.count >= TWICE && self.first_attempt <= call_info.throttles.last_sent;
            return Decision::Admit(Admission { gap: pace.gap, probe: None, prefer_first_attempt });
        }
        let at = self.probes.window_blocks(now, self.config.max_wait);
        if at <= now && ahead == 0 {
            return Decision::Admit(Admission {
                gap: pace.gap,
                probe: Some(Probe::Window),
                prefer_first_attempt: true,
            });
        }
        let silence = self.window.next_silence();
        Decision::Blocked(silence.map_or(at, |silence| at.min(silence)).max(now + NOTHING))
    }

    fn earliest_start(&mut self, now: Instant, call_info: &CallInfo, ahead: usize) -> Option<Instant> {
        let pace = if self.config.pacing.enabled { self.pace(now, call_info, ahead).at } else { now };
        Some(self.cooldown.until().map_or(pace, |until| until.max(pace)))
    }

    fn take_estimate_changed(&mut self) -> bool {
        std::mem::take(&mut self.estimate_changed)
    }

    fn is_first_attempt(call_info: &CallInfo) -> bool {
        call_info.throttles.count == 0
    }

    fn admit(&mut self, now: Instant, call_info: &CallInfo, admission: Admission) -> Ticket {
        self.seq += 1;
        let late = now.checked_sub(LATE).unwrap_or(now);
        let after = |last| if admission.gap.is_zero() { last } else { add(last, admission.gap) };
        self.last = Some(self.last.map_or(late, |last| late.max(after(last))));
        let (t, price) = (self.secs(now), self.price(call_info));
        let full = self
            .buckets
            .iter()
            .enumerate()
            .fold(0, |bits, (at, bucket)| bits | u8::from(bucket.estimate.full_by(t)) << at);
        for unit in UNITS {
            self.spent[unit as usize] += price[unit as usize];
        }
        for bucket in &mut self.buckets {
            bucket.estimate.spend(t, price[bucket.dimension.unit() as usize]);
        }
        if call_info.throttles.count == 0 {
            self.first_attempt = self.seq;
        }
        self.learned_rate.sent(t);
        self.cooldown.sent(now, self.seq);
        self.probes.admitted(now, admission.probe);
        let flight = self.window.sent(self.seq, now);
        let (seq, spent, known) = (self.seq, self.spent, self.known);
        let window_probe = admission.probe == Some(Probe::Window);
        Ticket {
            seq,
            flight,
            sent: now,
            call_info: *call_info,
            price,
            spent,
            gap: admission.gap,
            full,
            known,
            window_probe,
        }
    }

    /// A call has ended: its body, or the call without a success or a 429. What it spent stays spent.
    fn release(&mut self, now: Instant, seq: u64) {
        self.gone(now, seq);
        self.window.left(seq);
    }

    fn missing_permits(&self, now: Instant, ahead: usize) -> usize {
        match self.cooldown.opens(now, ahead, self.config.max_wait) {
            State::Now | State::At(_) if self.config.pacing.enabled => self.window.missing(ahead),
            _ => 0,
        }
    }

    fn lend_permit(&mut self) {
        self.window.lend();
    }

    fn release_lent(&mut self, now: Instant, seq: u64) {
        self.gone(now, seq);
        self.window.lent.returned();
    }

    /// Corrects configured buckets that no header has shown yet, and the mean price of calls without an estimate. Other buckets
    /// are corrected by snapshots.
    fn on_usage(&mut self, counted: f64, used: f64) {
        self.correction.call_took(used, 1.0);
        let more = used - counted;
        let mut seeds = self.of_unit(Unit::Tokens).filter(|level| level.is_seed()).peekable();
        if seeds.peek().is_some() {
            seeds.for_each(|level| level.give_back(-more));
            self.spent[Unit::Tokens as usize] += more;
        }
    }

    fn on_progress(&mut self) {
        self.failing = None;
    }
}
