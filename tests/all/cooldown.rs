//! The key that is closed: who is answered locally, who probes, and what opens it again.

use std::time::Duration;

use tower_429::quota::KeyState;
use tower_429::{NoRetry, PacingConfig, RejectReason, StopReason};
use tower_429_testing::Provider;

use crate::support_retry::*;

#[tokio::test(start_paused = true)]
async fn a_hint_that_is_too_long_closes_the_key_and_answers_who_waits() {
    let server =
        Server::new(
            |n, _| if n == 0 { Reply::bare().header("retry-after", "600").after(ms(100)) } else { Reply::ok() },
        );
    let layer = layer().pacing(PacingConfig::new().initial_window(1));
    let client = client(&layer, &server);
    let outcomes = send_all(&client, (0..10).map(|_| request())).await;
    assert_eq!((outcomes[0].status, outcomes[0].throttle), (429, None));
    for waiter in &outcomes[1..] {
        assert_eq!((waiter.throttle, waiter.head), (Some(RejectReason::Cooldown), ms(100)));
        assert_eq!(waiter.info.as_ref().unwrap().retry_after, Some(secs(120)));
    }
    assert_eq!(server.count(), 1);
    let answer = send(&client, request()).await;
    assert_eq!(throttle(&answer), Some(RejectReason::Cooldown));
    assert_eq!(answer.headers()["retry-after"], "120");
}

#[tokio::test(start_paused = true)]
async fn the_probes_of_a_closed_key_double_to_ten_minutes_and_a_success_opens_it() {
    let server = Server::new(|n, _| if n < 6 { Reply::bare().header("retry-after", "86400") } else { Reply::ok() });
    let client = client(&layer(), &server);
    let mut local = 0;
    // A caller every second, for 50 minutes.
    for _ in 0..3_000 {
        local += usize::from(throttle(&send(&client, request()).await) == Some(RejectReason::Cooldown));
        tokio::time::advance(secs(1)).await;
    }
    let times: Vec<_> = server.times().iter().take(7).map(Duration::as_secs).collect();
    assert_eq!(times, [0, 120, 360, 840, 1_440, 2_040, 2_640]);
    assert_eq!(server.count(), 7 + (3_000 - 2_641), "open again: everybody goes");
    assert_eq!(local, 2_640 - 6 + 1 - 1);
}

#[tokio::test(start_paused = true)]
async fn a_success_of_a_call_sent_before_the_429_does_not_open_a_closed_key() {
    let server = Server::new(|n, _| match n {
        0 => Reply::ok().after(secs(5)),
        1 => Reply::bare().header("retry-after", "600"),
        _ => Reply::ok(),
    });
    let client = client(&layer(), &server);
    let outcomes = send_all(&client, [request(), request()]).await;
    assert_eq!([outcomes[0].status, outcomes[1].status], [200, 429]);
    assert_eq!(throttle(&send(&client, request()).await), Some(RejectReason::Cooldown));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_cancelled_or_gets_no_clear_answer_does_not_close_the_key_for_ever() {
    let server = Server::new(|n, _| match n {
        0 => Reply::bare().header("retry-after", "600"),
        1 => Reply::ok().after(secs(60)),
        2 => Reply::status(500, ""),
        3 => Reply::broken("reset"),
        _ => Reply::ok(),
    });
    let client = client(&layer(), &server);
    send(&client, request()).await;
    tokio::time::advance(secs(121)).await;
    let cancelled = tokio::time::timeout(secs(1), send(&client, request())).await;
    assert!(cancelled.is_err());
    assert_eq!(send(&client, request()).await.status(), 500);
    assert_eq!(throttle(&send(&client, request()).await), Some(RejectReason::Cooldown), "probes are a second apart");
    tokio::time::advance(secs(1)).await;
    assert!(try_send(&client, request()).await.is_err());
    tokio::time::advance(secs(1)).await;
    assert_eq!(send(&client, request()).await.status(), 200, "the next caller's own call is the next probe");
    assert_eq!(server.count(), 5);
}

#[tokio::test(start_paused = true)]
async fn while_a_probe_is_out_everybody_else_is_answered_locally() {
    let server =
        Server::new(
            |n, _| if n == 0 { Reply::bare().header("retry-after", "600") } else { Reply::ok().after(secs(3)) },
        );
    let client = client(&layer(), &server);
    send(&client, request()).await;
    tokio::time::advance(secs(121)).await;
    let outcomes = send_all(&client, (0..20).map(|_| request())).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.status == 200).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| outcome.throttle == Some(RejectReason::Cooldown)).count(), 19);
    assert_eq!(send(&client, request()).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_probe_does_not_go_before_a_hint_that_ends_later() {
    // 19 s fit; 21 s do not, and close the key for 20 s. The first hint ends after up to 23.75 s.
    let mut jittered = 0;
    for seed in 0..20 {
        let server = Server::new(|n, _| match n {
            0 => Reply::bare().header("retry-after", "20").after(ms(10)),
            1 => Reply::bare().header("retry-after", "21").after(ms(10)),
            _ => Reply::ok(),
        });
        let layer = layer().seed(seed).max_wait(secs(20));
        let client = client(&layer, &server);
        let first = send_all(&client, [with(NoRetry), with(NoRetry)]).await;
        assert_eq!(first[0].info.as_ref().unwrap().stopped, Some(StopReason::RetryDisabled));
        let state = layer.quotas().snapshot(key()).unwrap().state;
        let KeyState::Closed { next_probe_in: until, .. } = state else { panic!("{state:?}") };
        jittered += usize::from(until > secs(21));
        for _ in 0..300 {
            send(&client, request()).await;
            tokio::time::advance(ms(100)).await;
        }
        let probe = server.times()[2];
        assert!(probe >= until && probe <= until + ms(120), "probe at {probe:?}, not before {until:?}");
    }
    assert!(jittered > 5);
}

#[tokio::test(start_paused = true)]
async fn one_bogus_hint_does_not_stop_a_healthy_key_for_a_day() {
    let server = Server::new(|n, _| {
        if n == 25 { Reply::bare().header("retry-after", "86400") } else { Reply::ok() }.after(ms(200))
    });
    let layer = layer();
    let client = client(&layer, &server);
    let outcomes = send_all(&client, (0..50).map(|_| request())).await;
    assert!(outcomes.iter().filter(|outcome| outcome.status == 200).count() >= 25);
    assert_eq!(throttle(&send(&client, request()).await), Some(RejectReason::Cooldown));
    tokio::time::advance(secs(121)).await;
    let outcomes = send_all(&client, (0..1).map(|_| request())).await;
    assert_eq!(outcomes[0].status, 200);
    let outcomes = send_all(&client, (0..50).map(|_| request())).await;
    assert!(outcomes.iter().all(|outcome| outcome.status == 200));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_always_refuses_answers_400_callers_within_minutes_and_with_few_attempts() {
    let texts = [
        (
            "rate",
            r#"{"error":{"message":"Rate limit reached for m on requests per min (RPM).","code":"rate_limit_exceeded"}}"#,
            429,
        ),
        ("bare", BARE, 429),
        ("concurrency", AT_ONCE, 429),
        ("overload", "", 503),
    ];
    for (class, body, status) in texts {
        for hint in [None, Some("1"), Some("1000")] {
            let server = Server::new(move |_, _| {
                let reply = Reply::status(status, body).after(ms(50));
                hint.map_or(reply, |_| {
                    Reply::status(status, body).after(ms(50)).header("retry-after-ms", hint.unwrap())
                })
            });
            let outcomes = send_all(&client(&layer(), &server), (0..400).map(|_| request())).await;
            let longest = outcomes.iter().map(|outcome| outcome.head).max().unwrap();
            let what = format!("{class}, hint {hint:?}: {} attempts, longest {longest:?}", server.count());
            assert!(outcomes.iter().all(|outcome| outcome.status == 429 || outcome.status == status), "{what}");
            assert!(longest <= secs(300), "{what}");
            let times = server.times();
            assert!(times.iter().filter(|at| **at < secs(300)).count() <= 60, "{what}");
            let later: Vec<_> = times.into_iter().filter(|at| *at > secs(1)).collect();
            assert!(
                later.windows(2).all(|pair| pair[1] - pair[0] >= secs(1)),
                "{what}: more than one a second, {later:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_in_trouble_is_not_closed_by_trouble_of_long_ago() {
    // One 429, an hour of nothing, then a few seconds of trouble: far less than two minutes without a success.
    let server = Server::new(|n, _| if n == 0 || (1..8).contains(&n) { Reply::status(503, "") } else { Reply::ok() });
    let client = client(&layer().max_retries(10), &server);
    assert_eq!(send(&client, with(NoRetry)).await.status(), 503);
    tokio::time::advance(secs(3_600)).await;
    assert_eq!(send(&client, request()).await.status(), 200, "{:?}", server.times());
}

#[tokio::test(start_paused = true)]
async fn after_the_quota_ends_no_more_than_what_was_out_reaches_the_server() {
    let provider =
        Provider::builder().quota_of(100).service_time(tower_429_testing::ServiceTime::Fixed(ms(300))).build();
    let layer = layer();
    let client = tower::Layer::layer(&layer, provider.clone());
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let workers: Vec<_> = (0..32)
        .map(|_| {
            let (client, next) = (client.clone(), next.clone());
            tokio::spawn(async move {
                let mut throttled = 0;
                while next.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 600 {
                    let answer = tower::ServiceExt::oneshot(client.clone(), request()).await.unwrap();
                    throttled += usize::from(throttle(&answer) == Some(RejectReason::QuotaExhausted));
                    let _ = http_body_util::BodyExt::collect(answer.into_body()).await;
                }
                throttled
            })
        })
        .collect();
    let mut throttled = 0;
    for worker in workers {
        throttled += worker.await.unwrap();
    }
    let seen = provider.seen();
    assert_eq!(seen.accepted, 100);
    assert!(seen.throttled_quota <= 32, "{} reached the server", seen.throttled_quota);
    assert_eq!(throttled, 600 - 100 - seen.throttled_quota);
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_quota_is_probed_after_half_a_minute_then_ever_more_rarely_until_it_is_back() {
    let server = Server::new(|n, _| if n < 7 { Reply::status(429, NO_QUOTA) } else { Reply::ok() });
    let client = client(&layer(), &server);
    for _ in 0..3_000 {
        let answer = send(&client, request()).await;
        assert!(matches!(throttle(&answer), None | Some(RejectReason::QuotaExhausted)));
        tokio::time::advance(secs(1)).await;
    }
    let times: Vec<_> = server.times().iter().take(8).map(Duration::as_secs).collect();
    assert_eq!(times, [0, 30, 90, 210, 450, 930, 1_530, 2_130]);
    assert_eq!(server.count(), 8 + (3_000 - 2_131));
}
