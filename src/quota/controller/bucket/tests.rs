//! The table comes first: it shows what each event does to one bucket.

use super::*;

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

/// Calls that were sent later than that of [`level`].
fn later(at: f64, spent: f64) -> Sent {
    sent(6, at, 50_000.0 + spent)
}

#[test]
fn each_event_changes_the_estimate_as_the_table_says() {
    type Event = fn(&mut BucketEstimate);
    let shown_as = |limit, remaining, reset| Shown { limit, remaining, reset: Some(reset) };
    assert_eq!(shown(20_000.0), shown_as(60_000.0, 20_000.0, 40.0));
    // At 10 s the bucket holds 20,000 of 60,000 and refills 1,000 a second; nobody else uses it.
    #[rustfmt::skip]
    let rows: [(&str, Event, f64, [f64; 4]); 16] = [
        // event                                                               looked at, holds, rate, others, cap
        ("five seconds pass", |_| {},                                          15.0, [25_000.0, 1_000.0, 0.0, 60_000.0]),
        ("a minute passes", |_| {},                                            70.0, [60_000.0, 1_000.0, 0.0, 60_000.0]),
        ("a call of 6,000 is sent", |b| b.spend(10.0, 6e3),                    10.0, [14_000.0, 1_000.0, 0.0, 60_000.0]),
        ("a call larger than the bucket takes all of it", |b| b.spend(10.0, 1e5), 10.0, [-40_000.0, 1_000.0, 0.0, 60_000.0]),
        ("the debt ends at one bucket", |b| (0..3).for_each(|_| b.spend(10.0, 1e5)), 10.0, [-60_000.0, 1_000.0, 0.0, 60_000.0]),
        ("6,000 are given back", |b| b.give_back(6e3),                         10.0, [26_000.0, 1_000.0, 0.0, 60_000.0]),
        ("more than it lacks is given back", |b| b.give_back(1e5),             10.0, [60_000.0, 1_000.0, 0.0, 60_000.0]),
        ("an earlier call's snapshot comes late",
            |b| _ = b.snapshot(11.0, sent(4, 9.0, 0.0), 5e4, shown(0.0)),      11.0, [21_000.0, 1_000.0, 0.0, 60_000.0]),
        ("a snapshot shows what was predicted",
            |b| _ = b.snapshot(14.0, later(14.0, 1e3), 51e3, shown(23e3)),     14.0, [23_000.0, 1_000.0, 0.0, 60_000.0]),
        ("2,000 more are spent before the snapshot comes",
            |b| { b.spend(14.0, 3e3); _ = b.snapshot(14.0, later(14.0, 1e3), 53e3, shown(23e3)); },
                                                                               14.0, [21_000.0, 1_000.0, 0.0, 60_000.0]),
        ("ten seconds later 5,000 are missing: half counts as others' use",
            |b| _ = b.snapshot(20.0, later(20.0, 0.0), 5e4, shown(25e3)),      20.0, [25_000.0, 1_000.0, 250.0, 60_000.0]),
        ("the limit doubles: three tenths of the new rate count",
            |b| _ = b.snapshot(10.0, later(10.0, 0.0), 5e4, Shown { limit: 12e4, remaining: 8e4, reset: Some(20.0) }),
                                                                               10.0, [80_000.0, 1_300.0, 0.0, 120_000.0]),
        ("1,000 less take ten seconds longer to fill: a short window",
            |b| _ = b.snapshot(10.0, later(10.0, 0.0), 5e4, Shown { limit: 6e4, remaining: 19e3, reset: Some(50.0) }),
                                                                               10.0, [19_000.0, 100.0, 0.0, 24_000.0]),
        ("it throttles although it held enough", |b| b.share(),                10.0, [20_000.0, 1_000.0, 500.0, 60_000.0]),
        ("it does so again", |b| (0..2).for_each(|_| b.share()),               10.0, [20_000.0, 1_000.0, 750.0, 60_000.0]),
        ("others' use is believed for 20 s", |b| b.share(),                    40.0, [40_000.0, 1_000.0, 500.0, 60_000.0]),
    ];
    for (what, event, at, expected) in rows {
        let mut bucket = level();
        event(&mut bucket);
        let state = [bucket.level(at), bucket.rate, bucket.external_rate, bucket.cap];
        let close = state.iter().zip(expected).all(|(is, expected)| (is - expected).abs() < 1e-6);
        assert!(close, "{what}: {state:?}, not {expected:?}");
    }
}

#[test]
fn what_a_call_needs_and_waits_for_follows_the_table() {
    // A bucket of 60,000 tokens that refills 1,000 a second, at 10 s.
    #[rustfmt::skip]
    let rows = [
        //                                  others,   holds,     price,   need,     wait, gap
        ("an empty bucket",                   0.0,      0.0,     500.0,    520.0,   0.52, 0.5),
        ("a bucket with some in it",          0.0, 20_000.0,     500.0,    520.0,   0.0,  0.1),
        ("half of the refill is others'",   500.0,      0.0,     500.0,    540.0,   1.08, 1.0),
        ("after 20 s all of it is ours",    500.0,      0.0,  60_000.0, 60_000.0,  70.0, 60.0),
        ("a call larger than the bucket",     0.0, 60_000.0, 100_000.0, 60_000.0,   0.0,  60.0 / 13.0),
        ("a call that takes nothing",         0.0, -1_000.0,       0.0,      0.0,   1.0,  0.0),
    ];
    for (what, others, holds, price, need, wait, gap) in rows {
        let mut bucket = level();
        bucket.external_rate = others;
        let needed = bucket.need(price, false);
        let state = [needed, bucket.wait_for(10.0, holds, needed), bucket.gap(holds, price)];
        let close = state.iter().zip([need, wait, gap]).all(|(is, expected)| (is - expected).abs() < 1e-9);
        assert!(close, "{what}: {state:?}");
    }
}

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
    level.snapshot(1.0, sent(2, 1.0, 2.0), 2.0, shown(1.0));
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
    level.snapshot(4.0, sent(3, 1.0, 3.0), spent, shown);
    assert!((level.level(4.0) - before).abs() < 1.0, "{} was {before}", level.level(4.0));
}

#[test]
fn a_late_snapshot_does_not_fill_a_bucket_that_was_just_emptied() {
    let mut level = short_bucket();
    for _ in 0..8 {
        level.spend(4.0, 1.0);
    }
    let shown = Shown { limit: 480.0, remaining: 1.0, reset: Some(7.0 / 8.0) };
    level.snapshot(4.0, sent(3, 1.0, 3.0), 11.0, shown);
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
