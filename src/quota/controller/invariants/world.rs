//! A controller with a queue in a few lines, which checks after each event what must hold.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::events::{Figures, How, QuotaEvent};
use crate::classify::{Kind, RateLimitSnapshot, Scope, Verdict};
use crate::dialect::Dialect;
use crate::quota::ControllerConfig;
use crate::quota::controller::{Bucket, CallInfo, Controller, Ticket, UNITS};
use crate::request::{Cost, next_number};
use crate::wait_queue::{AdmissionPolicy, Decision};

/// One call that waits, with the moment before which it may not go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    call_info: CallInfo,
    not_before: Instant,
}

/// A controller, who waits for it, and who is out: the queue in a few lines, without wakers.
pub(super) struct World {
    pub(super) controller: Controller,
    pub(super) now: Instant,
    pub(super) queue: VecDeque<Waiter>,
    pub(super) asleep: Vec<Waiter>,
    pub(super) out: Vec<(Ticket, bool)>,
    pub(super) lent: Vec<Ticket>,
    epoch: u64,
    spent: [f64; UNITS.len()],
    until: Option<Instant>,
    snaps: Vec<u64>,
    due: Option<Instant>,
}

impl World {
    pub(super) fn new(config: ControllerConfig, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            controller: Controller::new(config.into(), &Dialect::GENERIC, Rng::with_seed(seed), now),
            now,
            queue: VecDeque::new(),
            asleep: Vec::new(),
            out: Vec::new(),
            lent: Vec::new(),
            epoch: 0,
            spent: [0.0; UNITS.len()],
            until: None,
            snaps: Vec::new(),
            due: None,
        }
    }

    fn pick(&self, which: usize) -> Option<usize> {
        (!self.out.is_empty()).then(|| which % self.out.len())
    }

    /// Admits all calls that may be sent, as the queue does.
    pub(super) fn wake_eligible(&mut self) {
        let now = self.now;
        let (ripe, asleep): (Vec<_>, Vec<_>) = self.asleep.iter().partition(|waiter| waiter.not_before <= now);
        self.asleep = asleep;
        for waiter in ripe {
            self.queue.push_front(waiter);
        }
        self.due = self.asleep.iter().map(|waiter| waiter.not_before).min();
        let mut gone = 0;
        while let Some(head) = self.queue.front().copied() {
            let call_info = head.call_info;
            match self.controller.decide(now, &call_info, 0) {
                Decision::Admit(admission) => {
                    assert!(admission.gap <= Duration::from_secs(86_400));
                    assert!(self.controller.until().is_none_or(|until| until <= now), "5: nothing goes before `until`");
                    assert!(head.not_before <= now, "5: a throttled call goes no earlier than its own hint");
                    if self.controller.config.pacing.enabled && admission.probe.is_none() {
                        assert!(
                            self.controller.in_flight() < self.controller.window(),
                            "5: nothing goes above the window"
                        );
                    }
                    let seq = self.controller.seq;
                    let ticket = self.controller.admit(now, &call_info, admission);
                    assert_eq!(ticket.seq, seq + 1);
                    self.spent = self.controller.spent; // 2: a dispatch changes it
                    assert_eq!(ticket.spent, self.spent);
                    self.out.push((ticket, false));
                    self.queue.pop_front();
                    gone += 1;
                    assert!(gone <= 100_000);
                }
                Decision::NotBefore(at) => {
                    assert!(at > now, "a timer in the past would fire for ever");
                    self.due = Some(self.due.map_or(at, |due| due.min(at)));
                    return;
                }
                Decision::Blocked(at) => {
                    assert!(at > now, "a timer in the past would fire for ever");
                    self.due = Some(self.due.map_or(at, |due| due.min(at)));
                    return;
                }
                Decision::Reject { retry_after } => {
                    assert!(retry_after > self.controller.config.max_wait, "it waits for less");
                    self.queue.pop_front();
                }
                Decision::Closed(closed) => {
                    assert!(self.controller.cooldown.is_closed() && closed.retry_after <= Duration::from_secs(86_400));
                    self.queue.clear();
                }
            }
        }
    }

    /// Lets time pass as a timer does, and sees to it that each of its alarms leads somewhere.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut alarms = 0;
        while let Some(due) = self.due.filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let before = (self.controller.seq, self.controller.window());
            self.wake_eligible();
            alarms += usize::from((self.controller.seq, self.controller.window()) == before);
            assert!(alarms <= 2_000, "a busy loop: {alarms} alarms in {time:?} for nothing");
        }
        self.now = end;
    }

    pub(super) fn apply(&mut self, event: &QuotaEvent) {
        let now = self.now;
        match *event {
            QuotaEvent::Submit { tokens } => {
                if self.queue.is_empty() {
                    self.controller.on_arrival(now);
                }
                self.queue.push_back(Waiter {
                    call_info: CallInfo::new(next_number(), Cost::tokens(tokens)),
                    not_before: now,
                });
            }
            QuotaEvent::Cancel { which } => {
                let all = self.queue.len();
                if all > 0 {
                    let before = self.facts();
                    self.queue.remove(which % all);
                    assert_eq!(self.facts(), before, "7: a waiter that is cancelled costs nothing");
                }
            }
            QuotaEvent::Pass { ms } => self.pass(Duration::from_millis(ms)),
            QuotaEvent::Jump => self.now += Duration::from_secs(3_600),
            QuotaEvent::Success { which, shown } => {
                let Some(which) = self.pick(which).filter(|which| !self.out[*which].1) else { return };
                self.out[which].1 = true;
                let ticket = self.out[which].0;
                self.with_snapshot(&ticket, shown, |controller, shown| controller.on_success(now, &ticket, shown));
            }
            QuotaEvent::Refused { which, how, hint, shown, again } => {
                let Some(which) = self.pick(which).filter(|which| !self.out[*which].1) else { return };
                self.throttle(which, how, hint, shown, again);
            }
            QuotaEvent::Exhausted { which } => {
                let Some(which) = self.pick(which).filter(|which| !self.out[*which].1) else { return };
                let (ticket, _) = self.out.swap_remove(which);
                self.controller.on_quota_exhausted(now, &ticket, &Verdict::new(Kind::QuotaExhausted));
                assert!(self.controller.cooldown.is_closed());
            }
            QuotaEvent::Other { which, too_large, shown } => {
                let Some(which) = self.pick(which).filter(|which| !self.out[*which].1) else { return };
                self.out[which].1 = true;
                let ticket = self.out[which].0;
                self.controller.on_other_answer(now, &ticket, too_large, shown.snapshot().as_ref());
                self.spent = self.controller.spent;
            }
            QuotaEvent::End { which } => {
                let Some(which) = self.pick(which) else { return };
                let (ticket, _) = self.out.swap_remove(which);
                self.controller.release(now, ticket.seq);
            }
            QuotaEvent::Lend { which } => {
                let Some(which) = self.pick(which).filter(|which| self.out[*which].1) else { return };
                let (ticket, _) = self.out.swap_remove(which);
                self.controller.lend_permit();
                self.lent.push(ticket);
            }
            QuotaEvent::Return { which } => {
                if !self.lent.is_empty() {
                    let ticket = self.lent.swap_remove(which % self.lent.len());
                    self.controller.release_lent(now, ticket.seq);
                }
            }
            QuotaEvent::Withdrawn { which } => {
                let Some(which) = self.pick(which).filter(|which| !self.out[*which].1) else { return };
                let (ticket, _) = self.out.swap_remove(which);
                self.controller.on_withdrawn(now, &ticket);
                self.spent = self.controller.spent;
            }
        }
    }

    /// All that a snapshot could change.
    fn facts(&self) -> String {
        let levels: Vec<_> = self.controller.buckets.iter().map(|bucket| &bucket.estimate).collect();
        format!("{levels:?} {:?} {:?}", self.controller.spent, self.controller.window)
    }

    fn with_snapshot<T>(
        &mut self,
        ticket: &Ticket,
        shown: Figures,
        event: impl FnOnce(&mut Controller, Option<&RateLimitSnapshot>) -> T,
    ) -> T {
        let levels = |controller: &Controller| -> Vec<_> {
            let old = |bucket: &&Bucket| ticket.seq <= bucket.estimate.snap();
            controller
                .buckets
                .iter()
                .filter(old)
                .map(|bucket| (bucket.dimension, format!("{:?}", bucket.estimate)))
                .collect()
        };
        let before = levels(&self.controller);
        let told = event(&mut self.controller, shown.snapshot().as_ref());
        for (dimension, level) in before {
            let now = self.controller.buckets.iter().find(|bucket| bucket.dimension == dimension).unwrap();
            assert_eq!(format!("{:?}", now.estimate), level, "1: a snapshot of an earlier call changes nothing");
        }
        told
    }

    fn throttle(&mut self, which: usize, how: How, hint: Option<u64>, shown: Figures, again: bool) {
        let now = self.now;
        let (ticket, _) = self.out.swap_remove(which);
        let mut verdict = Verdict::new(match how {
            How::Rate | How::Bare => Kind::RateLimited,
            How::Concurrency => Kind::Concurrency,
            How::Overload => Kind::Overloaded,
        });
        if let How::Rate = how {
            verdict = verdict.with_scope(Scope::Requests);
        }
        let hint = hint.map(Duration::from_millis);
        if let Some(hint) = hint {
            verdict = verdict.with_retry_after(hint);
        }
        self.controller.expire_acks(now);
        let new = ticket.seq > self.epoch;
        let at = self.controller.secs(now);
        let figures = |controller: &Controller| {
            let external_rate: Vec<_> = controller.buckets.iter().map(|bucket| bucket.estimate.figures().1).collect();
            (controller.learned_rate.rate(at + 5.0), external_rate)
        };
        let (before, k) = (figures(&self.controller), self.controller.attribution.in_a_row());
        let (size, floor) = (self.controller.window(), self.controller.window.floor());
        let shown = shown.snapshot();
        let outcome = self.controller.on_throttled(now, &ticket, &verdict, shown.as_ref());
        let k_now = self.controller.attribution.in_a_row();
        if outcome.own_affair {
            assert_eq!(k_now, k, "a call's own affair is no episode");
            if shown.is_none() {
                assert_eq!(figures(&self.controller), before, "nor does it teach anything");
            }
        } else if new {
            assert_eq!(k_now, k + 1, "4: an episode raises k once");
            self.epoch = self.controller.seq;
        } else {
            assert_eq!(k_now, k, "4: what was out before teaches nothing twice");
            if shown.is_none() {
                assert_eq!(figures(&self.controller), before, "4: neither learned_rate nor others' use");
            }
        }
        let standing = (self.out.len() + self.lent.len()).max(1) as u32;
        let least = size.min(standing).min(if ticket.flight.probe { floor.max(1) } else { u32::MAX });
        assert!(self.controller.window() >= least, "4: {} < {least}", self.controller.window());
        if matches!(how, How::Rate | How::Overload) {
            assert!(self.controller.window() >= size, "a rate never touches the window");
        }
        assert!(outcome.not_before >= now);
        if let Some(hint) = hint.filter(|hint| *hint <= self.controller.config.max_wait)
            && !outcome.closed
        {
            assert!(outcome.not_before >= now + hint, "5: never before its own hint");
        }
        if again && !outcome.closed {
            let waiter = Waiter { call_info: outcome.call_info, not_before: outcome.not_before };
            if outcome.bypass_queue {
                self.asleep.push(waiter);
            } else {
                self.queue.push_front(waiter);
            }
        }
    }

    pub(super) fn check(&mut self) {
        assert_eq!(self.controller.in_flight() as usize, self.out.len(), "6: each ticket is closed exactly once");
        assert_eq!(
            self.controller.window.lent.count() as usize,
            self.lent.len(),
            "6: a lent permit returns exactly once"
        );
        assert_eq!(self.controller.spent, self.spent, "2: only dispatch and settlement change what was spent");
        let at = self.controller.secs(self.now);
        for bucket in &self.controller.buckets {
            let ((cap, _), level) = (bucket.estimate.figures(), bucket.estimate.level(at));
            assert!(level <= cap && !level.is_nan(), "2: {level} in {:?}", bucket.estimate);
        }
        let correction = self.controller.correction.factor();
        assert!((0.01..=4.0).contains(&correction), "no figures lead estimates astray: {correction}");
        let until = self.controller.until();
        assert!(until >= self.until, "3: `until` never falls");
        self.until = until;
        let snaps: Vec<_> = self.controller.buckets.iter().map(|bucket| bucket.estimate.snap()).collect();
        assert!(snaps.iter().zip(&self.snaps).all(|(now, before)| now >= before), "3: nor does `snap`");
        self.snaps = snaps;
    }
}
