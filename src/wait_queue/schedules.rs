//! Random schedules of calls, response heads, bodies and time. Permits add up, and no call waits for an unread body for
//! ever.

use std::task::Context;

use fastrand::Rng;

use super::permit::BodyState;
use std::time::Duration;

use super::*;

const LEND_AFTER: Duration = Duration::from_secs(1);
const SCHEDULES: u64 = 100_000;
const STEPS: usize = 12;

/// A plain limit that checks itself.
struct Seats {
    size: usize,
    in_use: usize,
    lent: usize,
}

impl AdmissionPolicy for Seats {
    type Call = ();
    type Ticket = u64;

    fn on_arrival(&mut self, _: Instant) {}

    fn decide(&mut self, now: Instant, (): &(), ahead: usize) -> Decision {
        if self.in_use + ahead < self.size {
            Decision::Admit(Admission::default())
        } else {
            Decision::Blocked(now + crate::time::LONGEST)
        }
    }

    fn admit(&mut self, _: Instant, (): &(), _: Admission) -> u64 {
        assert!(self.in_use < self.size, "too many at once");
        self.in_use += 1;
        1
    }

    fn release(&mut self, _: Instant, _: u64) {
        self.in_use -= 1;
    }

    fn missing_permits(&self, _: Instant, ahead: usize) -> usize {
        (self.in_use + ahead + 1).saturating_sub(self.size)
    }

    fn lend_permit(&mut self) {
        self.in_use -= 1;
        self.lent += 1;
    }

    fn release_lent(&mut self, _: Instant, _: u64) {
        self.lent -= 1;
    }
}

/// A permit, and whether its body was polled in time to keep it.
struct BodyGuard {
    permit: Permit,
    unread: bool,
    kept: bool,
}

struct World {
    queue: Arc<WaitQueue<Seats>>,
    waiting: Vec<Waiter<Seats>>,
    held: Vec<BodyGuard>,
    rng: Rng,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let queue = WaitQueue::new(Seats { size: rng.usize(1..4), in_use: 0, lent: 0 });
        Self { queue, waiting: Vec::new(), held: Vec::new(), rng }
    }

    /// Polls one waiting call, which may be admitted.
    fn poll(&mut self, at: usize) {
        let waiting = &mut self.waiting[at];
        if let Poll::Ready(outcome) = waiting.poll(&mut Context::from_waker(Waker::noop())) {
            let WaitOutcome::Admitted(seq) = outcome else { panic!("no bound was set") };
            drop(self.waiting.swap_remove(at));
            let permit = Permit::new(Arc::clone(&self.queue) as _, seq, Some(LEND_AFTER));
            self.held.push(BodyGuard { permit, unread: false, kept: false });
        }
    }

    fn pick<T>(rng: &mut Rng, from: &[T]) -> Option<usize> {
        (!from.is_empty()).then(|| rng.usize(..from.len()))
    }

    async fn step(&mut self) {
        match self.rng.u8(..16) {
            0..=4 => {
                let class = Priority::ALL[self.rng.usize(..3)];
                let position = QueuePosition { class, number: next_number() };
                self.waiting.push(Waiter::new(Arc::clone(&self.queue), position, (), WaitLimits::default()));
                self.poll(self.waiting.len() - 1);
            }
            5 | 6 => {
                if let Some(at) = Self::pick(&mut self.rng, &self.waiting) {
                    self.poll(at);
                }
            }
            7..=9 => {
                if let Some(at) = Self::pick(&mut self.rng, &self.held) {
                    let held = &mut self.held[at];
                    held.unread |= matches!(held.permit.body(), BodyState::Awaited { .. });
                    held.permit.handed_out();
                }
            }
            10 => {
                if let Some(at) = Self::pick(&mut self.rng, &self.held) {
                    let held = &mut self.held[at];
                    held.permit.polled();
                    held.kept |= matches!(held.permit.body(), BodyState::Read);
                }
            }
            11 | 12 => {
                if let Some(at) = Self::pick(&mut self.rng, &self.held) {
                    drop(self.held.swap_remove(at));
                }
            }
            13 => {
                if let Some(at) = Self::pick(&mut self.rng, &self.waiting) {
                    drop(self.waiting.swap_remove(at));
                }
            }
            14 => {
                let size = self.rng.usize(1..4);
                self.queue.update(|seats, _| seats.size = size);
            }
            _ => tokio::time::advance(Duration::from_millis(self.rng.u64(..1_500))).await,
        }
    }

    fn check(&self) {
        let state = self.queue.lock();
        let (in_use, lent) = (state.policy.in_use, state.policy.lent);
        assert_eq!(in_use + lent, self.held.len(), "each permit counts once");
        let kept = self.held.iter().filter(|held| held.kept || !held.unread).count();
        assert!(in_use >= kept, "a body that was polled in time, or has not come, keeps its permit");
        assert_eq!(state.unread.len() + kept, in_use, "all others in use are unread");
        assert_eq!(state.order.len(), self.waiting.len());
    }
}

#[tokio::test(start_paused = true)]
async fn permits_add_up_whatever_happens_and_unread_bodies_stop_nobody() {
    for seed in 0..SCHEDULES {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step().await;
            world.check();
        }
        // From now on no body is read. All waiting calls are admitted.
        world.held.retain(|held| held.unread && !held.kept);
        for _ in 0..2 * world.waiting.len() {
            if world.waiting.is_empty() {
                break;
            }
            world.held.iter_mut().for_each(|held| held.permit.handed_out());
            world.held.iter_mut().for_each(|held| held.unread = true);
            tokio::time::advance(LEND_AFTER).await;
            for at in (0..world.waiting.len()).rev() {
                world.poll(at);
            }
            world.check();
        }
        assert!(world.waiting.is_empty(), "seed {seed}: {} wait for ever", world.waiting.len());
        world.held.clear();
        world.check();
    }
}
