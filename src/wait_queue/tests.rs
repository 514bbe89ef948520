//! Tests that need the queue's internals: a timer that fires while the lock is held, and the waiters that are woken
//! when a timer is lost.

use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use std::time::Duration;

use super::*;

/// A policy with a number of permits and an earliest start.
struct Clocked {
    free: usize,
    opens: Option<Instant>,
}

impl AdmissionPolicy for Clocked {
    type Call = ();
    type Ticket = u64;

    fn on_arrival(&mut self, _: Instant) {}

    fn decide(&mut self, now: Instant, (): &(), ahead: usize) -> Decision {
        match self.opens {
            Some(opens) if opens > now => Decision::NotBefore(opens),
            _ if ahead < self.free => Decision::Admit(Admission::default()),
            _ => Decision::Blocked(now + crate::time::LONGEST),
        }
    }

    fn admit(&mut self, _: Instant, (): &(), _: Admission) -> u64 {
        self.free -= 1;
        1
    }

    fn release(&mut self, _: Instant, _: u64) {
        self.free += 1;
    }

    fn missing_permits(&self, _: Instant, _: usize) -> usize {
        0
    }

    fn lend_permit(&mut self) {}

    fn release_lent(&mut self, _: Instant, _: u64) {}
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn closed_for(time: Duration) -> Arc<WaitQueue<Clocked>> {
    WaitQueue::new(Clocked { free: 1, opens: Some(Instant::now() + time) })
}

/// Returns a waiter that has been polled once, and a counter of its wake-ups.
fn waiter(queue: &Arc<WaitQueue<Clocked>>, number: u64) -> (Waiter<Clocked>, Arc<Wakes>) {
    let position = QueuePosition { class: Priority::Normal, number };
    let mut waiting = Waiter::new(Arc::clone(queue), position, (), WaitLimits::default());
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    assert!(waiting.poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    (waiting, wakes)
}

/// Returns the wakers that the runtimes wake when the timers fire.
fn timers(queue: &Arc<WaitQueue<Clocked>>) -> Vec<Waker> {
    queue.lock().timers.wakers()
}

fn made(queue: &Arc<WaitQueue<Clocked>>) -> usize {
    queue.lock().timers.len()
}

/// Fires timers on a thread of its own.
fn fire(timers: Vec<Waker>) {
    std::thread::spawn(move || timers.into_iter().for_each(Waker::wake)).join().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_rings_while_somebody_looks_is_answered_by_who_looked() {
    let queue = closed_for(Duration::from_secs(1));
    let (_waiting, wakes) = waiter(&queue, 1);
    // The timer's thread finds the lock taken and must not wait for it.
    let timers = timers(&queue);
    queue.read(|_| fire(timers));
    assert!(!queue.timer_fired.load(Ordering::SeqCst), "nobody else would ever look");
    // The timer fired early, so the waiter must create a new one.
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_rings_while_a_call_is_at_the_door_is_answered() {
    let queue = closed_for(Duration::from_secs(1));
    let (_waiting, wakes) = waiter(&queue, 1);
    let timers = timers(&queue);
    let state = queue.lock();
    fire(timers);
    drop(state);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
    assert!(matches!(queue.try_admit(()), TryAdmit::Wait));
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    assert_eq!(queue.queued(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_timer_is_made_again_even_if_the_first_in_the_queue_is_silent() {
    let queue = closed_for(Duration::from_secs(1));
    let (_silent, first) = waiter(&queue, 1);
    let (mut second, wakes) = waiter(&queue, 2);
    fire(timers(&queue)); // as if the timer's runtime had shut down
    assert_eq!((first.0.load(Ordering::SeqCst), wakes.0.load(Ordering::SeqCst)), (1, 1));
    let waker = Waker::from(Arc::clone(&wakes));
    assert!(second.poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    let start = Instant::now();
    while wakes.0.load(Ordering::SeqCst) == 1 {
        assert!(start.elapsed() < Duration::from_secs(5), "its turn never comes");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The first waiter is notified when the key opens and is not polled. The next one is notified 20 ms later.
    assert_eq!(start.elapsed(), Duration::from_millis(1_020));
}

#[test]
fn runtimes_that_come_and_go_leave_nothing_behind() {
    let queue = closed_for(Duration::from_secs(1_000));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let lasting = runtime();
    let (_lasts, _) = lasting.block_on(async { waiter(&queue, 1) });
    for number in 2..10_002 {
        let passing = runtime();
        let (waiting, _) = passing.block_on(async { waiter(&queue, number) });
        assert_eq!(made(&queue), 2);
        if number % 2 == 0 {
            drop(waiting); // the waiter is dropped first
            drop(passing);
        } else {
            drop(passing); // the runtime is dropped first
            assert_eq!(made(&queue), 1);
            drop(waiting);
        }
        assert_eq!((made(&queue), queue.queued()), (1, 1));
    }
}

#[test]
fn a_timer_goes_with_the_last_waiter_of_its_runtime() {
    let queue = closed_for(Duration::from_secs(1_000));
    let runtimes = [(); 2]
        .map(|()| tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap());
    let mut waiters: Vec<_> = (0..4u8)
        .map(|at| runtimes[usize::from(at % 2)].block_on(async { waiter(&queue, u64::from(at) + 1).0 }))
        .collect();
    let mut left = || {
        waiters.pop();
        made(&queue)
    };
    assert_eq!([left(), left(), left(), left()], [2, 2, 1, 0]);
}
