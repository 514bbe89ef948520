//! Every wait has a moment at which it asks again by itself, and no caller stops another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tower_429::{PacingConfig, QuotaEvent, RejectReason};

use crate::support_retry::*;

/// A stream that never ends by itself: one event now, then silence.
fn open_stream() -> Reply {
    Reply::body(200, Steps::new([Step::Data("data: {}\n\n".into()), Step::Stall]))
}

#[tokio::test(start_paused = true)]
async fn a_bare_429_beside_an_open_stream_does_not_wait_for_its_end() {
    let server = Server::new(|n, _| match n {
        0 => open_stream(),
        1 => Reply::bare(),
        _ => Reply::ok(),
    });
    let client = client(&layer(), &server);
    let stream = send(&client, request()).await;
    let began = Instant::now();
    assert_eq!(send(&client, request()).await.status(), 200);
    assert!(began.elapsed() <= ms(800), "{:?}", began.elapsed());
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_always_throttled_beside_an_open_stream_ends_with_its_own_429() {
    let server = Server::new(|n, _| if n == 0 { open_stream() } else { Reply::bare() });
    let client = client(&layer(), &server);
    let stream = send(&client, request()).await;
    let answer = send(&client, request()).await;
    assert_eq!((answer.status().as_u16(), throttle(&answer)), (429, None));
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_rejected_unprocessed_gives_its_tokens_back() {
    for max_tokens in [1_000_000_u64, 1_000_000_000] {
        let body: &'static str = Box::leak(format!(r#"{{"max_tokens":{max_tokens},"input":"hello"}}"#).into());
        let server = Server::new(|n, seen| {
            if seen.body.len() > 32 && n > 0 {
                return Reply::status(400, r#"{"error":{"message":"max_tokens is too large"}}"#);
            }
            Reply::ok()
                .header("x-ratelimit-limit-tokens", "100000")
                .header("x-ratelimit-remaining-tokens", "99990")
                .header("x-ratelimit-reset-tokens", "6ms")
        });
        let client = client(&layer(), &server);
        let large = || {
            let mut request = request();
            *request.body_mut() = body.into();
            request
        };
        send(&client, request()).await;
        let began = Instant::now();
        assert_eq!(send(&client, large()).await.status(), 400);
        assert_eq!(send(&client, request()).await.status(), 200);
        assert!(began.elapsed() <= secs(1), "{max_tokens}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_said_to_stay_empty_for_a_month_does_not_stop_its_key() {
    let events = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&events);
    let layer = layer().on_event(move |_, event| {
        count.fetch_add(usize::from(matches!(event, QuotaEvent::BucketEmpty { .. })), Ordering::SeqCst);
    });
    let server = Server::new(|n, _| match n {
        0 => Reply::status(404, "")
            .header("x-ratelimit-limit-requests", "60")
            .header("x-ratelimit-remaining-requests", "0")
            .header("x-ratelimit-reset-requests", "720h"),
        _ => Reply::ok(),
    });
    let client = client(&layer, &server);
    send(&client, request()).await;
    let outcomes = send_all(&client, (0..5).map(|_| request())).await;
    assert!(outcomes.iter().all(|outcome| outcome.throttle == Some(RejectReason::Cooldown) && outcome.head == secs(0)));
    assert!(outcomes.iter().all(|outcome| outcome.info.as_ref().unwrap().retry_after > Some(secs(3_600))));
    tokio::time::advance(secs(119)).await;
    assert_eq!(throttle(&send(&client, request()).await), Some(RejectReason::Cooldown));
    tokio::time::advance(secs(1)).await;
    assert_eq!(send(&client, request()).await.status(), 200, "the probe");
    assert_eq!(events.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_of_two_hundred_requests_a_day_is_a_slow_key_for_the_patient() {
    let server = Server::new(|n, _| {
        Reply::ok()
            .header("x-ratelimit-limit-requests", "200")
            .header("x-ratelimit-remaining-requests", if n == 0 { "0" } else { "1" })
            .header("x-ratelimit-reset-requests", if n == 0 { "86400s" } else { "85968s" })
    });
    let client = client(&layer().max_wait(secs(600)), &server);
    send(&client, request()).await;
    let began = Instant::now();
    assert_eq!(send(&client, request()).await.status(), 200);
    assert!(began.elapsed() >= secs(432) && began.elapsed() <= secs(460), "{:?}", began.elapsed());
}

/// One healthy call each 0.1 s for a minute, each answered after 0.3 s, beside callers whose requests are always throttled and
/// who ask again as soon as they are told. How many healthy calls were done in time, and how many throttled ones got their own 429.
async fn beside_bad_callers(bad: usize, hint: Option<&'static str>) -> (usize, usize) {
    let server = Server::new(move |_, seen| {
        if seen.parts.headers.contains_key("x-bad") {
            let reply = Reply::bare().after(ms(50));
            return hint.map_or(Reply::bare().after(ms(50)), |hint| reply.header("retry-after-ms", hint));
        }
        Reply::ok().after(ms(300))
    });
    let client = client(&layer(), &server);
    let own = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..bad)
        .map(|_| {
            let (client, own) = (client.clone(), Arc::clone(&own));
            tokio::spawn(async move {
                loop {
                    let mut request = request();
                    request.headers_mut().insert("x-bad", "1".parse().unwrap());
                    let answer = send(&client, request).await;
                    own.fetch_add(usize::from(throttle(&answer).is_none()), Ordering::SeqCst);
                    tokio::time::sleep(ms(10)).await;
                }
            })
        })
        .collect();
    let calls: Vec<_> = (0..600_u64)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                tokio::time::sleep(ms(100) * u32::try_from(n).unwrap()).await;
                send(&client, request()).await.status() == 200
            })
        })
        .collect();
    tokio::time::sleep(secs(65)).await;
    calls.iter().for_each(|call| call.abort());
    let mut done = 0;
    for call in calls {
        done += usize::from(matches!(call.await, Ok(true)));
    }
    callers.iter().for_each(|caller| caller.abort());
    (done, own.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn callers_whose_requests_are_always_throttled_do_not_starve_the_others_of_their_key() {
    let (mut short, mut ended) = (Vec::new(), 0);
    for (bad, least) in [(1, 540), (3, 540), (10, 300)] {
        for hint in [None, Some("100"), Some("300"), Some("1000")] {
            let (done, own) = beside_bad_callers(bad, hint).await;
            println!("{done} of 600 beside {bad} bad callers, hint {hint:?}; {own} ended with their 429");
            short.extend((done < least).then_some((done, bad, hint)));
            ended += own;
        }
    }
    assert!(ended > 50, "the throttled ones end with their own 429: {ended}");
    assert!(short.is_empty(), "too few done, beside so many, with this hint: {short:?}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_not_answered_within_max_wait_is_followed_by_the_next() {
    let server = Server::new(|n, _| match n {
        0 => Reply::bare().header("retry-after", "600"),
        1 => Reply::ok().after(secs(80_000)),
        _ => Reply::ok(),
    });
    let client = client(&layer(), &server);
    send(&client, request()).await;
    tokio::time::advance(secs(120)).await;
    let silent = tokio::spawn({
        let client = client.clone();
        async move { send(&client, request()).await }
    });
    tokio::time::sleep(ms(1)).await;
    tokio::time::advance(secs(119)).await;
    assert_eq!(throttle(&send(&client, request()).await), Some(RejectReason::Cooldown));
    tokio::time::advance(secs(2)).await;
    assert_eq!(send(&client, request()).await.status(), 200);
    silent.abort();
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_cancelled_before_they_are_sent_give_back_what_they_took() {
    let server = Server::new(|_, _| {
        Reply::ok()
            .header("x-ratelimit-limit-requests", "60")
            .header("x-ratelimit-remaining-requests", "59")
            .header("x-ratelimit-reset-requests", "1s")
    });
    let client = client(&layer(), &server);
    send(&client, request()).await;
    for _ in 0..5_800 {
        drop(tower::Service::call(&mut client.clone(), request())); // never polled
    }
    let began = Instant::now();
    let outcomes = send_all(&client, (0..2).map(|_| request())).await;
    assert!(outcomes.iter().all(|outcome| outcome.status == 200));
    assert!(began.elapsed() <= secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_pacing_bare_429s_are_waited_for_all_the_same() {
    let server = Server::new(|_, _| Reply::bare().after(ms(10)));
    let client = client(&layer().pacing(PacingConfig::off()), &server);
    let calls = send_all(&client, (0..64).map(|_| request()));
    let _ = tokio::time::timeout(ms(400), calls).await;
    assert!(server.count() <= 128, "{}", server.count());
    let again: Vec<Duration> = server.times().into_iter().filter(|at| *at > ms(10)).collect();
    assert!(again.iter().all(|at| *at >= ms(250)), "{:?}", again.iter().min());
}
