//! What holds of a controller whatever happens to it: random events, hostile figures, and a clock that jumps.

mod events;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::quota::PacingConfig;
use crate::quota::controller::bucket::{Sent, Shown};
use crate::wait_queue::AdmissionPolicy;
use events::{QuotaEvent, event};
use world::World;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_books_are_right_whatever_happens(
        events in prop::collection::vec(event(), 1..120),
        seed in any::<u64>(),
        pacing in prop::bool::weighted(0.9),
        seeds in prop::option::of((1..1_000_u32, 1..1_000_000_u32)),
    ) {
        let config = ControllerConfig {
            pacing: PacingConfig {
                enabled: pacing,
                requests_per_minute: seeds.map(|(n, _)| f64::from(n)),
                tokens_per_minute: seeds.map(|(_, n)| f64::from(n)),
                ..PacingConfig::new()
            },
            ..ControllerConfig::default()
        };
        let mut world = World::new(config, seed);
        for event in &events {
            world.apply(event);
            world.check();
            world.wake_eligible();
            world.check();
        }
        // Everybody who is out comes back: then the queue empties, at most a day for each of those who wait.
        for _ in 0..3 * (world.queue.len() + world.asleep.len()) + 2 {
            while let Some((ticket, _)) = world.out.pop() {
                world.controller.release(world.now, ticket.seq);
            }
            while let Some(ticket) = world.lent.pop() {
                world.controller.release_lent(world.now, ticket.seq);
            }
            world.wake_eligible();
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
        let mut world = World::new(ControllerConfig { pacing: PacingConfig::new().initial_window(1 << 20), ..ControllerConfig::default() }, 1);
        world.apply(&QuotaEvent::Submit { tokens: 0.0 });
        world.wake_eligible();
        let ticket = world.out[0].0;
        let (limit, left) = (f64::from(limit), f64::from(limit) * (1.0 - used));
        let estimate = BucketEstimate::first(0.0, Sent { seq: ticket.seq, at: 0.0, spent: 1.0, calls: 1.0 }, 1.0, 60.0, Shown { limit, remaining: left, reset: Some(60.0 * used) });
        world.controller.buckets.push(Bucket { dimension: Dimension::Requests, estimate });
        world.controller.release(world.now, ticket.seq);
        world.out.clear();
        world.apply(&QuotaEvent::Jump);
        let at = world.controller.secs(world.now);
        let (cap, _) = world.controller.buckets[0].estimate.figures();
        prop_assert_eq!(world.controller.buckets[0].estimate.level(at), cap);
        for _ in 0..limit as usize {
            world.apply(&QuotaEvent::Submit { tokens: 0.0 });
        }
        world.wake_eligible();
        world.pass(Duration::from_secs(1));
        // A full bucket over 5 s, and what flows in meanwhile.
        let most = limit / 5.0 + limit / 60.0 + 2.0;
        prop_assert!(world.out.len() as f64 <= most, "{} within a second, {most}", world.out.len());
        let least = 0.7 * limit / 5.0;
        prop_assert!(world.out.len() as f64 >= least, "{} within a second, {least}", world.out.len());
    }

    #[test]
    fn a_call_larger_than_its_bucket_passes_when_the_bucket_is_full(limit in 1.0..1e6_f64, times in 1.0..1e3_f64) {
        let mut world = World::new(ControllerConfig {
            pacing: PacingConfig { tokens_per_minute: Some(limit), ..PacingConfig::new() },
            ..ControllerConfig::default()
        }, 1);
        world.apply(&QuotaEvent::Submit { tokens: limit * times });
        world.wake_eligible();
        prop_assert_eq!(world.out.len(), 1);
        world.apply(&QuotaEvent::Submit { tokens: limit * times });
        world.wake_eligible();
        prop_assert_eq!(world.out.len(), 1, "the next one waits until it is full again");
        world.pass(Duration::from_secs_f32(61.0 * times as f32 + 61.0));
        prop_assert_eq!(world.out.len(), 2);
    }
}
