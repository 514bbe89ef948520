//! The table comes first: it shows what each event changes.

use super::*;

const HIGH: Priority = Priority::ALL[0];
const LOW: Priority = Priority::ALL[CLASSES - 1];

fn at(class: Priority, number: u64) -> QueuePosition {
    QueuePosition { class, number }
}

fn insert(order: &mut WaitOrder<u64>, position: QueuePosition) {
    order.insert(position, position.number, None, Waker::noop().clone());
}

#[test]
fn each_event_changes_who_is_next_as_the_table_says() {
    type Event = fn(&mut WaitOrder<u64>, Instant);
    type Row = (&'static str, Event, (Option<u64>, usize, usize));
    // Calls 1, 2 and 3 wait in the lowest class.
    #[rustfmt::skip]
    let rows: [Row; 11] = [
        // event                                                        next,  counted ahead, waiting in all
        ("three calls wait", |_, _| {},                                 (Some(1), 0, 3)),
        ("a call with a lower number comes", |o, _| insert(o, at(LOW, 0)), (Some(0), 0, 4)),
        ("a call of a higher class comes", |o, _| insert(o, at(HIGH, 9)), (Some(9), 0, 4)),
        ("the first is notified", |o, t| _ = o.notify(at(LOW, 1), t),   (Some(2), 1, 3)),
        ("and polled in time", |o, t| {
            o.notify(at(LOW, 1), t);
            assert_eq!(o.arrive(at(LOW, 1)), Some(Arrival::InTime));
        },                                                              (Some(2), 0, 2)),
        ("it is not polled for 20 ms: it no longer counts", |o, t| {
            o.notify(at(LOW, 1), t);
            o.expire(t + CLAIM_TIMEOUT);
        },                                                              (Some(2), 0, 3)),
        ("then it is polled: too late", |o, t| {
            o.notify(at(LOW, 1), t);
            o.expire(t + CLAIM_TIMEOUT);
            assert_eq!(o.arrive(at(LOW, 1)), Some(Arrival::Late));
        },                                                              (Some(2), 0, 2)),
        ("after a silent one two are notified, and count as one", |o, t| {
            o.notify(at(LOW, 1), t);
            o.expire(t + CLAIM_TIMEOUT);
            (2..=3).for_each(|number| _ = o.notify(at(LOW, number), t + CLAIM_TIMEOUT));
        },                                                              (None, 1, 3)),
        ("the first is cancelled", |o, _| _ = o.remove(at(LOW, 1)),     (Some(2), 0, 2)),
        ("the key closes: all are notified, and none counts", |o, _| {
            assert!(!o.notify_closed(usize::MAX, &mut Vec::new()));
        },                                                              (None, 0, 3)),
        ("the key closes, but only two are notified at once", |o, _| {
            assert!(o.notify_closed(2, &mut Vec::new()), "there may be more");
        },                                                              (Some(3), 0, 3)),
    ];
    for (what, event, expected) in rows {
        let (now, mut order) = (Instant::now(), WaitOrder::new());
        (1..=3).for_each(|number| insert(&mut order, at(LOW, number)));
        event(&mut order, now);
        let next = order.head().map(|(position, _)| position.number);
        assert_eq!((next, order.ahead(), order.len()), expected, "{what}");
        order.expire(now + 9 * CLAIM_TIMEOUT);
        assert_eq!(order.ahead(), 0, "{what}: nobody counts for ever");
    }
}

#[test]
fn classes_are_served_in_proportion_to_their_strides() {
    let (now, mut order) = (Instant::now(), WaitOrder::new());
    for class in Priority::ALL {
        (1..=1_000).for_each(|number| insert(&mut order, at(class, number)));
    }
    let mut served = [0_u64; CLASSES];
    for _ in 0..500 {
        let (position, _) = order.head().unwrap();
        order.notify(position, now);
        order.arrive(position);
        order.charge(position.class);
        served[position.class.index()] += 1;
    }
    let product = |class: Priority| served[class.index()] * class.stride();
    for class in Priority::ALL {
        assert!(product(class).abs_diff(product(HIGH)) <= 2 * LOW.stride(), "{served:?}");
    }
}
