//! The table comes first: it shows what each event does to a window.

use super::*;

/// So many calls of one window, sent at the same time.
fn sent(window: &mut Window, calls: std::ops::RangeInclusive<u64>) -> Vec<Flight> {
    let now = Instant::now();
    calls.map(|seq| window.sent(seq, now)).collect()
}

/// Call `n`, which was sent last, is throttled for concurrency.
fn throttled(window: &mut Window, flight: Flight, last: u64) {
    window.left(flight.seq);
    window.lower(flight, last);
}

#[test]
fn each_event_changes_the_window_as_the_table_says() {
    type Event = fn(&mut Window);
    type Row = (&'static str, Event, (u32, u32, bool, bool));
    #[rustfmt::skip]
    let rows: [Row; 14] = [
        // event                                                          size, in flight, learned, probing
        ("a new key", |_| {},                                              (16,  0, false, false)),
        ("twelve calls are sent", |w| _ = sent(w, 1..=12),                 (16, 12, false, false)),
        ("the sixth is silent for 0.5 s: half full, so nothing doubles", |w| {
            let flights = sent(w, 1..=12);
            w.acked(flights[5], false);
        },                                                                 (16, 12, false, false)),
        ("the twelfth is silent, too: twice what was in flight", |w| {
            let flights = sent(w, 1..=12);
            w.acked(flights[11], false);
        },                                                                 (24, 12, false, false)),
        ("silence before a success doubles up to 64", |w| {
            let flights = sent(w, 1..=40);
            w.acked(flights[39], false);
        },                                                                 (72, 40, false, false)),
        ("and after a success without bound", |w| {
            let flights = sent(w, 1..=40);
            w.success(flights[0]);
            w.acked(flights[39], false);
        },                                                                 (80, 40, false, false)),
        ("a response at half the window adds one", |w| {
            let flights = sent(w, 1..=8);
            w.acked(flights[7], true);
        },                                                                 (17,  8, false, false)),
        ("a permit is lent", |w| { sent(w, 1..=12); w.lend(); },           (16, 11, false, false)),
        ("an idle minute keeps a window that nothing has grown", |w| w.rested(), (16, 0, false, false)),
        ("an idle minute resets a window that silence has grown", |w| {
            let flights = sent(w, 1..=16);
            w.acked(flights[15], false);
            w.rested();
        },                                                                 (16, 16, false, false)),
        ("a 429 leaves what is in flight", |w| {
            let flights = sent(w, 1..=12);
            throttled(w, flights[11], 12);
        },                                                                 (11, 11, true,  false)),
        ("an idle minute keeps what a 429 has shown", |w| {
            let flights = sent(w, 1..=12);
            throttled(w, flights[11], 12);
            w.rested();
        },                                                                 (11, 11, true,  false)),
        ("ten successes at a full window: a probe of one more", probing,   (12, 11, true,  true)),
        ("the probe is throttled: the window goes back", |w| {
            probing(w);
            let flights = sent(w, 23..=23);
            throttled(w, flights[0], 23);
        },                                                                 (11, 11, true,  false)),
    ];
    for (what, event, expected) in rows {
        let mut window = Window::new(16);
        event(&mut window);
        assert_eq!((window.size, window.in_flight, window.learned, window.probing), expected, "{what}");
    }
}

/// A window of eleven by a 429, which ten successes have made one larger.
fn probing(window: &mut Window) {
    let flights = sent(window, 1..=12);
    throttled(window, flights[11], 12);
    (1..=10).for_each(|seq| window.left(seq));
    for flight in sent(window, 13..=22) {
        window.success(Flight { n: window.size, ..flight });
    }
}

#[test]
fn silence_counts_after_five_quarters_of_the_slowest_recent_429() {
    // How long 429s took, and then how long silence takes to count, in milliseconds.
    let rows: [(&[u64], u64); 6] = [
        (&[], 500),
        (&[100], 500),
        (&[1_000], 1_250),
        (&[1_000, 100], 1_125), // nine tenths of the slowest count on
        (&[1_000, 950], 1_187),
        (&[60_000], 3_000),
    ];
    for (took, expected) in rows {
        let (now, mut window) = (Instant::now(), Window::new(16));
        took.iter().for_each(|took| window.throttle_took(Duration::from_millis(*took)));
        window.sent(1, now);
        let due = window.next_silence().map(|due| (due - now).as_millis());
        assert_eq!(due, Some(u128::from(expected)), "429s after {took:?} ms");
        assert!(window.silent(now + Duration::from_millis(expected - 1)).is_none());
        assert!(window.silent(now + Duration::from_millis(expected + 1)).is_some());
    }
}

#[test]
fn a_429_does_not_lower_the_window_below_what_is_in_flight_and_lent() {
    let now = Instant::now();
    let mut window = Window::new(16);
    let flights: Vec<_> = (1..=6).map(|seq| window.sent(seq, now)).collect();
    (0..3).for_each(|_| window.lend());
    assert_eq!((window.in_flight(), window.lent.count()), (3, 3));
    window.left(6); // throttled
    window.lower(flights[5], 6);
    assert_eq!((window.in_flight(), window.size()), (2, 5));
    assert_eq!([0, 1, 3].map(|ahead| window.missing(ahead)), [0, 0, 1]);
    // The server may still count the lent ones: a 429 below the peak may well be about how many at once.
    let seventh = window.sent(7, now);
    assert_eq!((seventh.n, seventh.lent), (3, 3));
    (0..3).for_each(|_| window.lent.returned());
    assert_eq!((window.in_flight(), window.lent.count()), (3, 0));
}
