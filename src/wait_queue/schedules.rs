//! Random schedules of calls, heads, bodies and time: permits add up, and nobody waits for an unread body for ever.

use std::task::Context;

use fastrand::Rng;

use super::permit::BodyState;
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

impl Rule for Seats {
    type Ask = ();
    type Pass = u64;
    const CLOCK: bool = false;

    fn submit(&mut self, _: Instant) {}

    fn next(&mut self, now: Instant, (): &(), ahead: usize) -> Next {
        if self.in_use + ahead < self.size { Next::Go(Go::default()) } else { Next::Park(now + crate::time::LONGEST) }
    }

    fn take(&mut self, _: Instant, (): &(), _: Go) -> u64 {
        assert!(self.in_use < self.size, "too many at once");
        self.in_use += 1;
        1
    }

    fn ended(&mut self, _: Option<Instant>, _: u64) {
        self.in_use -= 1;
    }

    fn missing(&self, _: Instant, ahead: usize) -> usize {
        (self.in_use + ahead + 1).saturating_sub(self.size)
    }

    fn lend(&mut self) {
        self.in_use -= 1;
        self.lent += 1;
    }

    fn returned(&mut self, _: Option<Instant>, _: u64) {
        self.lent -= 1;
    }
}

/// A permit, and whether its body has kept it by being polled in time.
struct Held {
    slot: Slot,
    unread: bool,
    kept: bool,
}

struct World {
    room: Arc<Room<Seats>>,
    waiting: Vec<Waiting<Seats>>,
    held: Vec<Held>,
    rng: Rng,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let room = Room::new(Seats { size: rng.usize(1..4), in_use: 0, lent: 0 });
        Self { room, waiting: Vec::new(), held: Vec::new(), rng }
    }

    /// Polls one call that waits; it may go.
    fn poll(&mut self, at: usize) {
        let waiting = &mut self.waiting[at];
        if let Poll::Ready(outcome) = waiting.poll(&mut Context::from_waker(Waker::noop())) {
            let Outcome::Admitted(seq) = outcome else { panic!("no bound was set") };
            drop(self.waiting.swap_remove(at));
            let slot = Slot::new(Arc::clone(&self.room) as _, seq, Some(LEND_AFTER));
            self.held.push(Held { slot, unread: false, kept: false });
        }
    }

    fn pick<T>(rng: &mut Rng, from: &[T]) -> Option<usize> {
        (!from.is_empty()).then(|| rng.usize(..from.len()))
    }

    async fn step(&mut self) {
        match self.rng.u8(..16) {
            0..=4 => {
                let class = Priority::ALL[self.rng.usize(..3)];
                let place = Place { class, number: next_number() };
                self.waiting.push(Waiting::new(Arc::clone(&self.room), place, (), Bounds::default()));
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
                    held.unread |= matches!(held.slot.body(), BodyState::Awaited { .. });
                    held.slot.handed_out();
                }
            }
            10 => {
                if let Some(at) = Self::pick(&mut self.rng, &self.held) {
                    let held = &mut self.held[at];
                    held.slot.polled();
                    held.kept |= matches!(held.slot.body(), BodyState::Read);
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
                self.room.tell(|seats, _| seats.size = size);
            }
            _ => tokio::time::advance(Duration::from_millis(self.rng.u64(..1_500))).await,
        }
    }

    fn check(&self) {
        let state = self.room.lock();
        let (in_use, lent) = (state.rule.in_use, state.rule.lent);
        assert_eq!(in_use + lent, self.held.len(), "each permit counts once");
        let kept = self.held.iter().filter(|held| held.kept || !held.unread).count();
        assert!(in_use >= kept, "a body that was polled in time, or has not come, keeps its permit");
        assert_eq!(state.unread.len() + kept, in_use, "all others in use are unread");
        assert_eq!(state.queue.len(), self.waiting.len());
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
        // From now on nobody reads: all who wait get in.
        world.held.retain(|held| held.unread && !held.kept);
        for _ in 0..2 * world.waiting.len() {
            if world.waiting.is_empty() {
                break;
            }
            world.held.iter_mut().for_each(|held| held.slot.handed_out());
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
