//! When a throttled call goes again: what the server's hints say, through the whole layer, in the wait that really happens.

use std::time::Duration;

use tower_429::{PacingConfig, StopReason};

use crate::support_retry::*;

fn patient() -> tower_429::RetryOn429Layer {
    layer().max_wait(secs(86_400)).max_sleep(secs(86_400))
}

async fn wait_after(reply: Reply) -> Duration {
    let server = Server::saying([reply]);
    let answer = send(&client(&patient(), &server), request()).await;
    assert_eq!((answer.status().as_u16(), server.count()), (200, 2));
    server.seen()[1].at
}

/// Without a hint: the first wait of a key whose rate is the cause is 0.25 to 0.5 s.
#[track_caller]
fn assert_unhinted(took: Duration, what: &str) {
    assert!(took >= ms(250) && took <= ms(501), "{what}: {took:?} is not the first wait without a hint");
}

#[tokio::test(start_paused = true)]
async fn a_hint_in_a_header_is_waited_for_and_a_malformed_one_is_none() {
    let none = None;
    for (headers, expected) in [
        (&[("retry-after", "0")][..], Some(0)),
        (&[("retry-after", "2")], Some(2_000)),
        (&[("retry-after", " 3 ")], Some(3_000)),
        (&[("retry-after", "1.5")], Some(1_500)),
        (&[("retry-after", "0.0004")], Some(1)),
        (&[("retry-after", "-1")], none),
        (&[("retry-after", "nan")], none),
        (&[("retry-after", "inf")], none),
        (&[("retry-after", "")], none),
        (&[("retry-after", "soon")], none),
        (&[("retry-after", "soon"), ("retry-after", "2")], Some(2_000)),
        (&[("retry-after", "2"), ("retry-after", "9")], Some(2_000)),
        (&[("retry-after-ms", "750")], Some(750)),
        (&[("retry-after-ms", "0")], Some(0)),
        (&[("retry-after-ms", "750"), ("retry-after", "3")], Some(750)),
        (&[("retry-after-ms", "-1"), ("retry-after", "3")], Some(3_000)),
        (&[("retry-after-ms", "nan"), ("retry-after", "3")], Some(3_000)),
        (&[("x-ms-retry-after-ms", "1200"), ("retry-after", "3")], Some(1_200)),
        (&[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")], Some(10_000)),
        (&[("retry-after", "Sunday, 06-Nov-94 08:49:47 GMT"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")], Some(10_000)),
        (&[("retry-after", "Sun Nov  6 08:49:47 1994"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")], Some(10_000)),
        (&[("retry-after", "Sun, 06 Nov 1994 08:49:27 GMT"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")], Some(0)),
        (&[("retry-after", "Sunday, 06-Nov-94 08:49:27 GMT"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")], Some(0)),
        (&[("retry-after", "Sun Nov  6 08:49:27 1994"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")], Some(0)),
        // Without the answer's own date, our clock counts: 1994 is past.
        (&[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")], Some(0)),
        // A server whose clock is years ahead of ours, and one that is behind: its own date counts.
        (&[("retry-after", "Thu, 01 Jan 2099 00:00:05 GMT"), ("date", "Thu, 01 Jan 2099 00:00:00 GMT")], Some(5_000)),
        (&[("retry-after", "Sat, 01 Jan 2000 00:00:05 GMT"), ("date", "Sat, 01 Jan 2000 00:00:00 GMT")], Some(5_000)),
    ] {
        // The message names the axis, so that without any hint the rate is the cause.
        let reply = Reply::status(
            429,
            r#"{"error":{"message":"Rate limit reached for m on requests per min (RPM).","code":"rate_limit_exceeded"}}"#,
        );
        let reply = headers.iter().fold(reply, |reply, (name, value)| reply.header(name, value));
        let took = wait_after(reply).await;
        match expected {
            Some(hint) => assert_hinted(took, ms(hint), &format!("{headers:?}")),
            None => assert_unhinted(took, &format!("{headers:?}")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_without_measure_is_told_and_not_waited_for() {
    for value in ["1e300", "18446744073709551615", "121", "86400"] {
        let server = Server::saying([Reply::bare().header("retry-after", value)]);
        let answer = send(&client(&layer(), &server), request()).await;
        assert_eq!((answer.status().as_u16(), server.times()), (429, vec![ms(0)]), "{value}");
        let stopped = info(&answer).unwrap();
        assert_eq!(stopped.stopped, Some(StopReason::HintTooLong));
        assert!(stopped.retry_after.unwrap() >= secs(121), "as said, uncapped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_without_end_overflows_nothing_however_patient_the_layer() {
    use tower_429::Verdict;
    use tower_429::classify::Kind;
    for kind in [Kind::RateLimited, Kind::Concurrency, Kind::Overloaded, Kind::ServerError] {
        let endless = patient().max_wait(Duration::MAX).retry_on(tower_429::RetryOn::openai_sdk());
        let endless = endless.classify(move |_, _| Some(Verdict::new(kind).with_retry_after(Duration::MAX)));
        let server = Server::new(|n, _| if n == 0 { Reply::status(429, "") } else { Reply::ok() });
        let answer = send(&client(&endless, &server), with(tower_429::Deadline::within(secs(100)))).await;
        assert_eq!(answer.status(), 429, "{kind:?}");
        let stopped = info(&answer).unwrap().stopped;
        assert!(matches!(stopped, Some(StopReason::Deadline | StopReason::SleepSpent)), "{kind:?}: {stopped:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_in_the_message_is_waited_for() {
    for (said, millis) in [
        ("Please try again in 20ms.", 20),
        ("Please try again in 1.2s.", 1_200),
        ("Please try again in 7m12s.", 432_000),
        ("Please try again in 6m0s.", 360_000),
        ("Please try again in 1h2m3.5s.", 3_723_500),
        ("Please retry after 35 seconds.", 35_000),
        ("Please retry after 6 seconds.", 6_000),
    ] {
        let body = format!(
            r#"{{"error":{{"message":"Rate limit reached for m on requests per min (RPM). {said}","type":"requests","code":"rate_limit_exceeded"}}}}"#
        );
        assert_hinted(wait_after(Reply::status(429, body)).await, ms(millis), said);
    }
    let long = Reply::status(
        429,
        r#"{"error":{"message":"Rate limit reached. Please try again in 114h18m0s.","code":"rate_limit_exceeded"}}"#,
    );
    let server = Server::saying([long]);
    let answer = send(&client(&layer(), &server), request()).await;
    assert_eq!(info(&answer).unwrap().retry_after, Some(secs(114 * 3600 + 18 * 60)));
}

#[tokio::test(start_paused = true)]
async fn of_a_header_in_seconds_and_the_message_the_longer_counts() {
    let say = |time: &str| {
        Reply::status(429, format!(r#"{{"error":{{"message":"Rate limit reached. Please try again in {time}."}}}}"#))
    };
    assert_hinted(wait_after(say("6s").header("retry-after", "1")).await, secs(6), "message");
    assert_hinted(wait_after(say("1s").header("retry-after", "6")).await, secs(6), "header");
    assert_hinted(wait_after(say("6s").header("retry-after-ms", "1000")).await, secs(1), "milliseconds are exact");
}

fn exhausted(reset: &str) -> Reply {
    Reply::bare()
        .header("x-ratelimit-limit-requests", "100")
        .header("x-ratelimit-remaining-requests", "0")
        .header("x-ratelimit-reset-requests", reset)
}

#[tokio::test(start_paused = true)]
async fn the_reset_of_an_exhausted_bucket_is_waited_for_only_without_pacing() {
    let server = Server::saying([exhausted("60s")]);
    let answer = send(&client(&layer().pacing(PacingConfig::off()), &server), request()).await;
    assert_hinted(server.seen()[1].at, secs(60), "without pacing");
    assert_eq!(info(&answer).unwrap().verdict.unwrap().retry_after, Some(secs(60)), "and told");

    let server = Server::saying([exhausted("60s")]);
    send(&client(&layer(), &server), request()).await;
    let took = server.seen()[1].at;
    assert!(took < secs(3), "the bucket itself says that one more fits after 0.6 s and a margin: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_reset_of_a_bucket_closes_no_key() {
    for pacing in [true, false] {
        let layer = layer().pacing(if pacing { PacingConfig::new() } else { PacingConfig::off() });
        let server = Server::saying([exhausted("3600s")]);
        let client = client(&layer, &server);
        let answer = send(&client, request()).await;
        let next = send(&client, request()).await;
        assert_ne!(throttle(&next), Some(tower_429::RejectReason::Cooldown), "pacing {pacing}, {:?}", info(&answer));
    }
}

#[tokio::test(start_paused = true)]
async fn from_the_third_429_in_a_row_a_hint_is_stretched_to_half_the_wait_without_one() {
    let server = Server::new(|n, _| if n < 5 { Reply::bare().header("retry-after-ms", "1") } else { Reply::ok() });
    send(&client(&layer(), &server), request()).await;
    let times = server.times();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, least) in gaps.iter().zip([1, 1, 1_000, 2_000, 4_000]) {
        assert!(*gap >= ms(least) && *gap <= ms(least + 52), "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_hint_the_waits_double_and_are_drawn_anew() {
    let run = |seed| async move {
        let server = Server::new(|n, _| if n < 5 { Reply::status(503, "") } else { Reply::ok() });
        send(&client(&layer().seed(seed), &server), request()).await;
        server.times().windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
    };
    let (one, same, other) = (run(1).await, run(1).await, run(2).await);
    for (n, gap) in one.iter().enumerate() {
        let most = ms(500 << n);
        assert!(*gap >= most / 2 && *gap <= most + ms(1), "{one:?}");
    }
    assert_eq!(one, same, "a seed reproduces them");
    assert_ne!(one, other);
}

#[tokio::test(start_paused = true)]
async fn a_seed_reproduces_the_waits_after_server_and_transport_errors() {
    for replies in [[500, 500], [0, 0], [409, 0], [429, 500]] {
        let run = |seed| async move {
            let server = Server::saying(replies.map(|status| match status {
                0 => Reply::broken("reset by peer"),
                status => Reply::status(status, ""),
            }));
            let sdk = layer().retry_on(tower_429::RetryOn::openai_sdk()).seed(seed);
            assert_eq!(send(&client(&sdk, &server), request()).await.status(), 200);
            server.times()
        };
        let (one, same, other) = (run(1).await, run(1).await, run(2).await);
        assert_eq!(one.len(), 3);
        assert_eq!(one, same, "{replies:?}");
        assert_ne!(one, other, "{replies:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_seed_does_not_make_idempotency_keys_equal() {
    let name = http::HeaderName::from_static("idempotency-key");
    let server = Server::saying([]);
    for _ in 0..2 {
        send(&client(&layer().seed(1).idempotency_key(name.clone()), &server), request()).await;
    }
    let keys: Vec<_> = server.seen().iter().map(|seen| seen.parts.headers["idempotency-key"].clone()).collect();
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test(start_paused = true)]
async fn clones_of_one_client_do_not_come_back_with_equal_jitter() {
    // Keys of their own, so that each draws for itself.
    let server = Server::new(|n, _| if n < 40 { Reply::status(500, "").after(ms(1)) } else { Reply::ok() });
    let sdk = layer().retry_on(tower_429::RetryOn::openai_sdk()).pacing(PacingConfig::off());
    send_all(&client(&sdk, &server), (0..40).map(|_| request())).await;
    let mut times = server.times().split_off(40);
    times.dedup();
    assert!(times.len() > 30, "40 draws over 250 ms, of which a timer tells whole milliseconds: {}", times.len());
}

#[tokio::test(start_paused = true)]
async fn a_later_and_shorter_hint_does_not_shorten_a_cooldown() {
    let server = Server::new(|n, _| match n {
        0 => Reply::bare().header("retry-after", "20").after(ms(10)),
        1 => Reply::bare().header("retry-after", "2").after(ms(20)),
        _ => Reply::ok(),
    });
    let outcomes = send_all(&client(&layer(), &server), [request(), request()]).await;
    assert!(outcomes.iter().all(|outcome| outcome.status == 200));
    assert!(server.times()[2..].iter().all(|at| *at >= secs(20)), "{:?}", server.times());
}

#[tokio::test(start_paused = true)]
async fn a_429_that_says_how_many_at_once_holds_back_its_own_call_alone() {
    let server = Server::new(|n, _| match n {
        1 => Reply::status(429, AT_ONCE).header("retry-after", "5"),
        _ => Reply::ok().after(secs(2)),
    });
    let client = client(&layer(), &server);
    let outcomes = send_all(&client, (0..3).map(|_| request())).await;
    assert_eq!(outcomes.iter().map(|outcome| outcome.status).collect::<Vec<_>>(), [200; 3]);
    let times = server.times();
    // One stood when it was throttled: that is the cap. The third goes as a probe, and the throttled one after its hint.
    assert_eq!(times[2], ms(700));
    assert_hinted(times[3], secs(5), "the throttled call");
}
