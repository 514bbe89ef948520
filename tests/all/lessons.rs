//! Situations in which other rate limiters broke.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_ok};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, Cost, PacingConfig};

use crate::support_retry::*;

/// A call that the server is to recognise.
fn marked() -> Req {
    let mut request = request();
    request.headers_mut().insert("x-marked", "1".parse().unwrap());
    request
}

fn is_marked(seen: &Seen) -> bool {
    seen.parts.headers.contains_key("x-marked")
}

/// So many callers that call one after another until this moment. Their successes are counted by the second since `from`.
async fn throughput(client: &Client, callers: usize, from: Instant, seconds: u64) -> Vec<usize> {
    let ends = from + secs(seconds);
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut done = Vec::new();
                while Instant::now() < ends {
                    let answer = send(&client, request()).await;
                    let (status, now) = (answer.status(), Instant::now());
                    let _ = answer.into_body().collect().await;
                    if status == 200 && now >= from && now < ends {
                        done.push((now - from).as_secs());
                    } else if status != 200 {
                        sleep(ms(100)).await;
                    }
                }
                done
            })
        })
        .collect();
    let mut each = vec![0; usize::try_from(seconds).unwrap()];
    for caller in callers {
        for second in caller.await.unwrap() {
            each[usize::try_from(second).unwrap()] += 1;
        }
    }
    each
}

#[tokio::test(start_paused = true)]
async fn four_hundred_429s_one_after_another_of_calls_in_flight_do_not_slow_their_key_down_for_long() {
    const REFUSED: usize = 400;
    let mut throttled = 0;
    let server = Server::new(move |_, seen| {
        if is_marked(seen) && throttled < REFUSED {
            throttled += 1;
            return Reply::bare().header("retry-after", "89").after(secs(2) * u32::try_from(throttled).unwrap());
        }
        Reply::ok().after(secs(1))
    });
    let layer = layer().pacing(PacingConfig::new().initial_window(1_000));
    let client = client(&layer, &server);
    let before = throughput(&client, 40, Instant::now(), 30).await;
    let pace: usize = before[10..].iter().sum::<usize>() / 20;
    assert!(pace >= 38, "40 callers, 1 s a call: {before:?}");

    let began = Instant::now();
    let calls: Vec<_> = (0..REFUSED)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { send(&client, marked()).await.status().as_u16() })
        })
        .collect();
    sleep_until(began + secs(2) * u32::try_from(REFUSED).unwrap() + ms(1)).await;
    let cooldown = layer.quotas().snapshot(key()).unwrap().state.cooldown().expect("the last hint is not over");
    assert!(cooldown <= secs(94), "89 s and at most 5 s more: {cooldown:?}");
    assert_eq!(server.seen().iter().filter(|seen| is_marked(seen)).count(), REFUSED, "none left before its hint ended");

    let after = throughput(&client, 40, Instant::now() + cooldown, 90).await;
    let back: usize = after[60..].iter().sum();
    assert!(back * 10 >= pace * 30 * 9, "{back} in 30 s, {pace} a second before: {after:?}");
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
}

/// Four calls at once are throttled with these hints, in this order, a second apart. When the next call left, counted from
/// the last 429, and the window then.
async fn throttled_with(hints: [Option<Duration>; 4], body: &'static str) -> (Duration, u32) {
    let server = Server::new(move |n, _| match hints.get(n) {
        Some(hint) => {
            let reply = Reply::status(429, body).after(ms(300) + secs(1) * u32::try_from(n).unwrap());
            hint.map_or(Reply::status(429, body).after(ms(300)), |hint| {
                reply.header("retry-after-ms", &hint.as_millis().to_string())
            })
        }
        None => Reply::ok(),
    });
    let layer = layer();
    let client = client(&layer, &server);
    let outcomes = send_all(&client, (0..4).map(|_| request())).await;
    assert!(outcomes.iter().all(|outcome| outcome.status == 200), "{outcomes:?}");
    let window = layer.quotas().snapshot(key()).unwrap().window;
    (server.times()[4] - ms(3_300), window)
}

#[tokio::test(start_paused = true)]
async fn a_longer_hint_never_shortens_a_wait_nor_shrinks_a_window() {
    for body in [BARE, AT_ONCE] {
        let mut last: Option<(Duration, u32)> = None;
        for hint in [4, 5, 10, 20, 40, 60, 100] {
            let (wait, window) = throttled_with([Some(secs(hint)); 4], body).await;
            if let Some((shorter, wider)) = last {
                assert!(wait >= shorter, "{hint} s, {body}: {wait:?}, and {shorter:?} with a shorter one");
                assert!(window >= wider, "{hint} s, {body}: {window}, and {wider} with a shorter one");
            }
            last = Some((wait, window));
        }
    }
    // Nor does a short one, or none, that comes after a long one.
    for last in [Some(ms(10)), Some(secs(1)), None] {
        let (wait, _) = throttled_with([Some(secs(60)), Some(secs(30)), Some(secs(2)), last], BARE).await;
        assert!(wait >= secs(57), "60 s were said 3 s before: {wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_hints_that_come_at_once_the_longest_holds() {
    for long in 0..4 {
        let server = Server::new(move |n, _| match n {
            0..4 => Reply::bare().header("retry-after", if n == long { "60" } else { "1" }).after(ms(300)),
            _ => Reply::ok(),
        });
        let outcomes = send_all(&client(&layer(), &server), (0..4).map(|_| request())).await;
        assert!(outcomes.iter().all(|outcome| outcome.status == 200));
        let times = server.times();
        assert!(times[4] >= ms(60_300), "{long}: {times:?}");
        assert_eq!(times.len(), 8);
    }
}

#[tokio::test(start_paused = true)]
async fn none_of_a_hundred_that_wait_leaves_before_a_hint_that_arrives() {
    for body in [BARE, AT_ONCE] {
        let server = Server::new(move |n, _| match n {
            0 => Reply::status(429, body).header("retry-after", "30").after(ms(200)),
            1..4 => Reply::ok().after(ms(400)), // frees its permit while the hint holds
            _ => Reply::ok().after(ms(10)),
        });
        let client = client(&layer().pacing(PacingConfig::new().initial_window(4)), &server);
        let outcomes = send_all(&client, (0..104).map(|_| request())).await;
        assert!(outcomes.iter().all(|outcome| outcome.status == 200));
        let times = server.times();
        assert_eq!(times.len(), 105);
        if body == BARE {
            assert!(times[4] >= ms(30_200), "{:?}", &times[..8]);
        } else {
            // How many at once was the throttled call's own affair: the key stays open, and that call waits.
            assert!(server.seen().iter().all(|seen| seen.resend.is_none() || seen.at >= ms(30_200)));
        }
    }
}

/// Sixty requests and 60,000 tokens a minute. The first call leaves 30 and 10 of them. So many calls wait for tokens for 5 s,
/// and are dropped. How long thirty calls take then that need no tokens.
async fn beside_calls_that_wait_for_tokens(waiters: usize) -> Duration {
    let server = Server::saying([Reply::ok()
        .header("x-ratelimit-limit-requests", "60")
        .header("x-ratelimit-remaining-requests", "30")
        .header("x-ratelimit-reset-requests", "30s")
        .header("x-ratelimit-limit-tokens", "60000")
        .header("x-ratelimit-remaining-tokens", "10")
        .header("x-ratelimit-reset-tokens", "60s")]);
    let client = client(&layer(), &server);
    send(&client, with(Cost::tokens(1.0))).await;
    let waiting: Vec<_> =
        (0..waiters).map(|_| tokio::spawn(client.clone().oneshot(with(Cost::tokens(20_000.0))))).collect();
    sleep(secs(5)).await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    for call in waiting {
        assert!(call.await.unwrap_err().is_cancelled(), "20,000 tokens take 20 s");
    }
    let began = Instant::now();
    let outcomes = send_all(&client, (0..30).map(|_| with(Cost::tokens(0.0)))).await;
    assert!(outcomes.iter().all(|outcome| outcome.status == 200));
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_tokens_takes_no_requests() {
    let alone = beside_calls_that_wait_for_tokens(0).await;
    assert_eq!(beside_calls_that_wait_for_tokens(50).await, alone);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_back_at_nine_tenths_within_a_minute_after_an_outage_of_three_minutes() {
    const RATE: u64 = 20;
    let (began, outage, over) = (Instant::now(), secs(60), secs(240));
    let server = Server::new(move |_, _| match began.elapsed() {
        since if since >= outage && since < over => Reply::bare().after(ms(100)),
        _ => Reply::ok().after(ms(500)),
    });
    let client = client(&layer(), &server);
    let calls: Vec<_> = (0..RATE * 360)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                sleep_until(began + ms(1_000 / RATE * n)).await;
                let answer = send(&client, request()).await;
                let (status, at) = (answer.status(), began.elapsed());
                let _ = answer.into_body().collect().await;
                (status == 200).then_some(at)
            })
        })
        .collect();
    let mut done = Vec::new();
    for call in calls {
        done.extend(call.await.unwrap());
    }
    let within = |from: Duration, to: Duration| done.iter().filter(|at| **at >= from && **at < to).count();
    let (before, after) = (within(secs(20), outage), within(over + secs(60), secs(340)));
    assert!(before >= 790, "40 s at 20 a second: {before}");
    assert!(after * 10 >= before * 9, "{after} in 40 s, {before} before");
}

/// Counts how many run, and how many ran at most. It yields once, so that calls meet.
#[derive(Debug, Clone, Default)]
struct Meeting {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
}

impl Service<Req> for Meeting {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        let this = self.clone();
        this.most.fetch_max(this.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        this.served.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            tokio::task::yield_now().await;
            this.running.fetch_sub(1, Ordering::SeqCst);
            Ok(Response::new(Full::default()))
        })
    }
}

#[test]
fn eight_threads_never_have_more_in_flight_than_allowed() {
    const THREADS: usize = 8;
    const TASKS: usize = 2;
    const CALLS: usize = 300; // of each task
    const AT_ONCE: usize = 5;
    let (retry, limit) = (layer(), ConcurrencyLimitLayer::new(AT_ONCE).per_key());
    let server = Meeting::default();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let stack = ServiceBuilder::new().layer(retry.clone()).layer(limit.clone()).service(server.clone());
            let quotas = retry.quotas();
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                runtime.block_on(async {
                    let calls = (0..TASKS).map(|_| async {
                        for _ in 0..CALLS {
                            assert_eq!(stack.clone().oneshot(request()).await.unwrap().status(), 200);
                            let snapshot = quotas.snapshot(key()).unwrap();
                            assert!(snapshot.in_flight <= snapshot.window, "{snapshot:?}");
                        }
                    });
                    futures_util::future::join_all(calls).await;
                });
            });
        }
    });
    assert_eq!(server.served.load(Ordering::SeqCst), THREADS * TASKS * CALLS);
    assert!(server.most.load(Ordering::SeqCst) <= AT_ONCE, "{}", server.most.load(Ordering::SeqCst));
    let snapshot = retry.quotas().snapshot(key()).unwrap();
    assert_eq!((snapshot.in_flight, snapshot.queued), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn two_permits_that_are_free_before_the_first_woken_call_runs_let_two_calls_leave() {
    let server = Server::new(|n, _| Reply::ok().after(if n < 2 { secs(1_000) } else { ms(0) }));
    let layer = layer().pacing(PacingConfig::new().initial_window(2));
    let mut service = client(&layer, &server);
    let mut calls = [(); 4].map(|()| spawn(service.call(request())));
    calls.iter_mut().for_each(|call| assert_pending!(call.poll()));
    assert_eq!(server.count(), 2);
    let [first, second, mut third, mut fourth] = calls;
    drop(first);
    assert!(third.is_woken() && !fourth.is_woken());
    drop(second); // the third one has not come yet
    assert!(fourth.is_woken());
    // In the other order than they were woken in.
    assert_ready_ok!(fourth.poll());
    assert_ready_ok!(third.poll());
    assert_eq!(server.count(), 4);
}
