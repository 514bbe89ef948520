//! What holds of a gate whatever happens to it: random events, hostile figures, and a clock that jumps.

mod events;

use std::collections::VecDeque;

use fastrand::Rng;
use proptest::prelude::*;

use super::*;
use crate::classify::{Kind, Scope, Verdict};
use crate::quota::controller::bucket::{Sent, Shown};
use crate::request::{Cost, next_number};
use events::{Event, Figures, How, event};

/// One call that waits, with the moment before which it may not go.
#[derive(Debug, Clone, Copy)]
struct Waiter {
    ask: Ask,
    not_before: Instant,
}

/// A gate, who waits for it, and who is out: the room in a few lines, without wakers.
struct World {
    gate: Gate,
    now: Instant,
    queue: VecDeque<Waiter>,
    asleep: Vec<Waiter>,
    out: Vec<(Ticket, bool)>,
    lent: Vec<Ticket>,
    epoch: u64,
    spent: [f64; UNITS.len()],
    until: Option<Instant>,
    snaps: Vec<u64>,
    due: Option<Instant>,
}

impl World {
    fn new(config: GateConfig, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            gate: Gate::new(config.into(), &Dialect::GENERIC, Rng::with_seed(seed), now),
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

    /// Lets go whoever may, as the room does.
    fn pump(&mut self) {
        let now = self.now;
        let (ripe, asleep): (Vec<_>, Vec<_>) = self.asleep.iter().partition(|waiter| waiter.not_before <= now);
        self.asleep = asleep;
        for waiter in ripe {
            self.queue.push_front(waiter);
        }
        self.due = self.asleep.iter().map(|waiter| waiter.not_before).min();
        let mut gone = 0;
        while let Some(head) = self.queue.front().copied() {
            let ask = head.ask;
            match self.gate.next(now, &ask, 0) {
                Next::Go(go) => {
                    assert!(go.gap <= Duration::from_secs(86_400));
                    assert!(self.gate.until().is_none_or(|until| until <= now), "5: nothing goes before `until`");
                    assert!(head.not_before <= now, "5: a refused call goes no earlier than its own hint");
                    if self.gate.config.pacing && go.probe.is_none() {
                        assert!(self.gate.in_flight() < self.gate.window(), "5: nothing goes above the window");
                    }
                    let seq = self.gate.seq;
                    let ticket = self.gate.take(now, &ask, go);
                    assert_eq!(ticket.seq, seq + 1);
                    self.spent = self.gate.spent; // 2: a dispatch changes it
                    assert_eq!(ticket.spent, self.spent);
                    self.out.push((ticket, false));
                    self.queue.pop_front();
                    gone += 1;
                    assert!(gone <= 100_000);
                }
                Next::At(at) => {
                    assert!(at > now, "a timer in the past would fire for ever");
                    self.due = Some(self.due.map_or(at, |due| due.min(at)));
                    return;
                }
                Next::Park(at) => {
                    assert!(at > now, "a timer in the past would fire for ever");
                    self.due = Some(self.due.map_or(at, |due| due.min(at)));
                    return;
                }
                Next::Reject { retry_after } => {
                    assert!(retry_after > self.gate.config.max_wait, "it waits for less");
                    self.queue.pop_front();
                }
                Next::Closed(closed) => {
                    assert!(self.gate.cooldown.is_shut() && closed.retry_after <= Duration::from_secs(86_400));
                    self.queue.clear();
                }
            }
        }
    }

    /// Lets time pass as a timer does, and sees to it that each of its alarms leads somewhere.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut alarms = 0;
        while let Some(due) = self.due.filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let before = (self.gate.seq, self.gate.window());
            self.pump();
            alarms += usize::from((self.gate.seq, self.gate.window()) == before);
            assert!(alarms <= 2_000, "a busy loop: {alarms} alarms in {time:?} for nothing");
        }
        self.now = end;
    }

    fn apply(&mut self, event: &Event) {
        let now = self.now;
        match *event {
            Event::Submit { tokens } => {
                if self.queue.is_empty() {
                    self.gate.submit(now);
                }
                self.queue.push_back(Waiter { ask: Ask::new(next_number(), Cost::tokens(tokens)), not_before: now });
            }
            Event::Cancel { which } => {
                let all = self.queue.len();
                if all > 0 {
                    let before = self.facts();
                    self.queue.remove(which % all);
                    assert_eq!(self.facts(), before, "7: a waiter that is cancelled costs nothing");
                }
            }
            Event::Pass { ms } => self.pass(Duration::from_millis(ms)),
            Event::Jump => self.now += Duration::from_secs(3_600),
            Event::Success { which, shown } => {
                let Some(which) = self.pick(which).filter(|which| !self.out[*which].1) else { return };
                self.out[which].1 = true;
                let ticket = self.out[which].0;
                self.with_snapshot(&ticket, shown, |gate, shown| gate.success(now, &ticket, shown));
            }
            Event::Refused { which, how, hint, shown, again } => {
                let Some(which) = self.pick(which).filter(|which| !self.out[*which].1) else { return };
                self.refuse(which, how, hint, shown, again);
            }
            Event::Exhausted { which } => {
                let Some(which) = self.pick(which).filter(|which| !self.out[*which].1) else { return };
                let (ticket, _) = self.out.swap_remove(which);
                self.gate.exhausted(now, &ticket, &Verdict::new(Kind::QuotaExhausted));
                assert!(self.gate.cooldown.is_shut());
            }
            Event::Other { which, too_large, shown } => {
                let Some(which) = self.pick(which).filter(|which| !self.out[*which].1) else { return };
                self.out[which].1 = true;
                let ticket = self.out[which].0;
                self.gate.other(now, &ticket, too_large, shown.snapshot().as_ref());
                self.spent = self.gate.spent;
            }
            Event::End { which } => {
                let Some(which) = self.pick(which) else { return };
                let (ticket, _) = self.out.swap_remove(which);
                self.gate.ended(Some(now), ticket.seq);
            }
            Event::Lend { which } => {
                let Some(which) = self.pick(which).filter(|which| self.out[*which].1) else { return };
                let (ticket, _) = self.out.swap_remove(which);
                self.gate.lend();
                self.lent.push(ticket);
            }
            Event::Return { which } => {
                if !self.lent.is_empty() {
                    let ticket = self.lent.swap_remove(which % self.lent.len());
                    self.gate.returned(Some(now), ticket.seq);
                }
            }
            Event::Withdrawn { which } => {
                let Some(which) = self.pick(which).filter(|which| !self.out[*which].1) else { return };
                let (ticket, _) = self.out.swap_remove(which);
                self.gate.withdrawn(now, &ticket);
                self.spent = self.gate.spent;
            }
        }
    }

    /// All that a snapshot could change.
    fn facts(&self) -> String {
        let levels: Vec<_> = self.gate.dims.iter().map(|dim| &dim.level).collect();
        format!("{levels:?} {:?} {:?}", self.gate.spent, self.gate.window)
    }

    fn with_snapshot<T>(
        &mut self,
        ticket: &Ticket,
        shown: Figures,
        event: impl FnOnce(&mut Gate, Option<&RateLimitSnapshot>) -> T,
    ) -> T {
        let levels = |gate: &Gate| -> Vec<_> {
            let old = |dim: &&Dim| ticket.seq <= dim.level.snap();
            gate.dims.iter().filter(old).map(|dim| (dim.dimension, format!("{:?}", dim.level))).collect()
        };
        let before = levels(&self.gate);
        let told = event(&mut self.gate, shown.snapshot().as_ref());
        for (dimension, level) in before {
            let now = self.gate.dims.iter().find(|dim| dim.dimension == dimension).unwrap();
            assert_eq!(format!("{:?}", now.level), level, "1: a snapshot of an earlier call changes nothing");
        }
        told
    }

    fn refuse(&mut self, which: usize, how: How, hint: Option<u64>, shown: Figures, again: bool) {
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
        self.gate.silences(now);
        let new = ticket.seq > self.epoch;
        let at = self.gate.secs(now);
        let figures = |gate: &Gate| {
            let foreign: Vec<_> = gate.dims.iter().map(|dim| dim.level.figures().1).collect();
            (gate.ceiling.rate(at + 5.0), foreign)
        };
        let (before, k) = (figures(&self.gate), self.gate.blame.in_a_row());
        let (size, floor) = (self.gate.window(), self.gate.window.floor());
        let shown = shown.snapshot();
        let fate = self.gate.refused(now, &ticket, &verdict, shown.as_ref());
        let k_now = self.gate.blame.in_a_row();
        if fate.own_affair {
            assert_eq!(k_now, k, "a call's own affair is no episode");
            if shown.is_none() {
                assert_eq!(figures(&self.gate), before, "nor does it teach anything");
            }
        } else if new {
            assert_eq!(k_now, k + 1, "4: an episode raises k once");
            self.epoch = self.gate.seq;
        } else {
            assert_eq!(k_now, k, "4: what was out before teaches nothing twice");
            if shown.is_none() {
                assert_eq!(figures(&self.gate), before, "4: neither ceiling nor others' use");
            }
        }
        let standing = (self.out.len() + self.lent.len()).max(1) as u32;
        let least = size.min(standing).min(if ticket.flight.probe { floor.max(1) } else { u32::MAX });
        assert!(self.gate.window() >= least, "4: {} < {least}", self.gate.window());
        if matches!(how, How::Rate | How::Overload) {
            assert!(self.gate.window() >= size, "a rate never touches the window");
        }
        assert!(fate.not_before >= now);
        if let Some(hint) = hint.filter(|hint| *hint <= self.gate.config.max_wait)
            && !fate.closed
        {
            assert!(fate.not_before >= now + hint, "5: never before its own hint");
        }
        if again && !fate.closed {
            let waiter = Waiter { ask: fate.ask, not_before: fate.not_before };
            if fate.alone {
                self.asleep.push(waiter);
            } else {
                self.queue.push_front(waiter);
            }
        }
    }

    fn check(&mut self) {
        assert_eq!(self.gate.in_flight() as usize, self.out.len(), "6: each ticket is closed exactly once");
        assert_eq!(self.gate.window.lent.count() as usize, self.lent.len(), "6: a lent permit returns exactly once");
        assert_eq!(self.gate.spent, self.spent, "2: only dispatch and settlement change what was spent");
        let at = self.gate.secs(self.now);
        for dim in &self.gate.dims {
            let ((cap, _), level) = (dim.level.figures(), dim.level.level(at));
            assert!(level <= cap && !level.is_nan(), "2: {level} in {:?}", dim.level);
        }
        let correction = self.gate.correction.factor();
        assert!((0.01..=4.0).contains(&correction), "no figures lead estimates astray: {correction}");
        let until = self.gate.until();
        assert!(until >= self.until, "3: `until` never falls");
        self.until = until;
        let snaps: Vec<_> = self.gate.dims.iter().map(|dim| dim.level.snap()).collect();
        assert!(snaps.iter().zip(&self.snaps).all(|(now, before)| now >= before), "3: nor does `snap`");
        self.snaps = snaps;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_books_are_right_whatever_happens(
        events in prop::collection::vec(event(), 1..120),
        seed in any::<u64>(),
        pacing in prop::bool::weighted(0.9),
        seeds in prop::option::of((1..1_000_u32, 1..1_000_000_u32)),
    ) {
        let config = GateConfig {
            pacing,
            requests_per_minute: seeds.map(|(n, _)| f64::from(n)),
            tokens_per_minute: seeds.map(|(_, n)| f64::from(n)),
            ..GateConfig::default()
        };
        let mut world = World::new(config, seed);
        for event in &events {
            world.apply(event);
            world.check();
            world.pump();
            world.check();
        }
        // Everybody who is out comes back: then the queue empties, at most a day for each of those who wait.
        for _ in 0..3 * (world.queue.len() + world.asleep.len()) + 2 {
            while let Some((ticket, _)) = world.out.pop() {
                world.gate.ended(Some(world.now), ticket.seq);
            }
            while let Some(ticket) = world.lent.pop() {
                world.gate.returned(Some(world.now), ticket.seq);
            }
            world.pump();
            world.pass(Duration::from_secs(86_401));
            world.check();
        }
        prop_assert!(world.queue.is_empty() && world.asleep.is_empty(), "{} wait for ever", world.queue.len());
    }

    #[test]
    fn after_an_hour_of_sleep_the_buckets_are_full_and_a_burst_is_spread(
        limit in 20..10_000_u32,
        used in 0.0..1.0_f64,
    ) {
        let mut world = World::new(GateConfig { initial_window: 1 << 20, ..GateConfig::default() }, 1);
        world.apply(&Event::Submit { tokens: 0.0 });
        world.pump();
        let ticket = world.out[0].0;
        let (limit, left) = (f64::from(limit), f64::from(limit) * (1.0 - used));
        let level = Level::first(0.0, Sent { seq: ticket.seq, at: 0.0, spent: 1.0, calls: 1.0 }, 1.0, 60.0, Shown { limit, remaining: left, reset: Some(60.0 * used) });
        world.gate.dims.push(Dim { dimension: Dimension::Requests, level });
        world.gate.ended(Some(world.now), ticket.seq);
        world.out.clear();
        world.apply(&Event::Jump);
        let at = world.gate.secs(world.now);
        let (cap, _) = world.gate.dims[0].level.figures();
        prop_assert_eq!(world.gate.dims[0].level.level(at), cap);
        for _ in 0..limit as usize {
            world.apply(&Event::Submit { tokens: 0.0 });
        }
        world.pump();
        world.pass(Duration::from_secs(1));
        // A full bucket over 5 s, and what flows in meanwhile.
        let most = limit / 5.0 + limit / 60.0 + 2.0;
        prop_assert!(world.out.len() as f64 <= most, "{} within a second, {most}", world.out.len());
        let least = 0.7 * limit / 5.0;
        prop_assert!(world.out.len() as f64 >= least, "{} within a second, {least}", world.out.len());
    }

    #[test]
    fn a_call_larger_than_its_bucket_passes_when_the_bucket_is_full(limit in 1.0..1e6_f64, times in 1.0..1e3_f64) {
        let mut world = World::new(GateConfig { tokens_per_minute: Some(limit), ..GateConfig::default() }, 1);
        world.apply(&Event::Submit { tokens: limit * times });
        world.pump();
        prop_assert_eq!(world.out.len(), 1);
        world.apply(&Event::Submit { tokens: limit * times });
        world.pump();
        prop_assert_eq!(world.out.len(), 1, "the next one waits until it is full again");
        world.pass(Duration::from_secs_f32(61.0 * times as f32 + 61.0));
        prop_assert_eq!(world.out.len(), 2);
    }
}
