//! The controller behind whole servers: caps, priorities, deadlines, cancelled calls, idle hours, and servers that lie.

use std::time::Duration;

use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_429::{Cost, Deadline, PacingConfig, Priority, RejectReason, RetryOn429Layer};
use tower_429_testing::{Hints, Latency, Limit, Provider, RateHeaders, ServiceTime, Wording};

use crate::support_retry::*;

async fn call(layer: &RetryOn429Layer, provider: &Provider, request: Req) -> (u16, Duration) {
    let began = Instant::now();
    let answer = layer.layer(provider.clone()).oneshot(request).await.unwrap();
    let head = began.elapsed();
    let status = answer.status().as_u16();
    http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    (status, head)
}

/// So many calls at once: how many did not succeed.
async fn failed_of(layer: &RetryOn429Layer, provider: &Provider, calls: usize) -> usize {
    let calls: Vec<_> = (0..calls)
        .map(|_| {
            let (layer, provider) = (layer.clone(), provider.clone());
            tokio::spawn(async move { call(&layer, &provider, request()).await.0 })
        })
        .collect();
    let mut failed = 0;
    for call in calls {
        failed += usize::from(call.await.unwrap() != 200);
    }
    failed
}

#[tokio::test(start_paused = true)]
async fn the_body_this_crate_was_written_for_is_a_bare_rate_limit_and_is_retried() {
    let server = Server::saying([Reply::bare()]);
    let answer = send(&client(&layer(), &server), request()).await;
    let verdict = info(&answer).unwrap().verdict.unwrap();
    assert_eq!(verdict.kind, tower_429::classify::Kind::RateLimited);
    assert_eq!(verdict.evidence, tower_429::classify::Evidence::Bare);
    assert_eq!((answer.status().as_u16(), server.count()), (200, 2));
}

#[tokio::test(start_paused = true)]
async fn behind_a_server_that_caps_what_runs_at_once_and_says_nothing_else_no_call_fails() {
    for headers in [RateHeaders::None, RateHeaders::All] {
        let provider = Provider::builder()
            .at_once(16)
            .wording(Wording::Bare)
            .hints(Hints::Neither)
            .hint_concurrency(false)
            .rate_headers(headers)
            .latency(Latency::internet())
            .service_time(ServiceTime::Uniform(ms(500), ms(1_500)))
            .build();
        let began = Instant::now();
        assert_eq!(failed_of(&layer(), &provider, 600).await, 0);
        let seen = provider.seen();
        assert_eq!(seen.accepted, 600);
        assert!(seen.throttled() <= 48, "0.08 for each success: {}", seen.throttled());
        assert!(began.elapsed() < secs(44), "600 calls of 1 s, 16 at once, take 37.5 s: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_interactive_call_hardly_waits_beside_a_batch_of_a_thousand() {
    let provider = Provider::builder()
        .requests(Limit::per_minute(500))
        .latency(Latency::internet())
        .service_time(ServiceTime::Fixed(secs(1)))
        .build();
    let layer = layer();
    let batch: Vec<_> = (0..1_000)
        .map(|_| {
            let (layer, provider) = (layer.clone(), provider.clone());
            tokio::spawn(async move { call(&layer, &provider, with(Priority::Batch)).await.0 })
        })
        .collect();
    let mut heads = Vec::new();
    for second in 0..55 {
        tokio::time::sleep_until(Instant::now() + ms(1_000)).await;
        let (layer, provider) = (layer.clone(), provider.clone());
        heads.push(tokio::spawn(async move { (second, call(&layer, &provider, with(Priority::Interactive)).await) }));
    }
    let mut waits = Vec::new();
    for head in heads {
        let (_, (status, head)) = head.await.unwrap();
        assert_eq!(status, 200);
        waits.push(head.saturating_sub(ms(1_100)));
    }
    waits.sort_unstable();
    let p95 = waits[waits.len() * 95 / 100];
    assert!(p95 <= ms(300), "{p95:?} of {waits:?}");
    for call in batch {
        assert_eq!(call.await.unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_turn_cannot_come_before_its_deadline_is_throttled_before_it_waits() {
    let provider =
        Provider::builder().requests(Limit::per_minute(60)).service_time(ServiceTime::Fixed(secs(2))).build();
    let layer = layer();
    let batch: Vec<_> = (0..300)
        .map(|_| {
            let (layer, provider) = (layer.clone(), provider.clone());
            tokio::spawn(async move { call(&layer, &provider, request()).await.0 })
        })
        .collect();
    tokio::time::sleep(secs(30)).await; // some 220 wait yet, at one a second
    let late = call(&layer, &provider, with(Deadline::within(secs(60)))).await;
    assert_eq!(late, (429, ms(0)), "answered at once");
    let (status, head) = call(&layer, &provider, with(Deadline::within(secs(290)))).await;
    assert_eq!(status, 200, "its turn comes after {head:?}");
    let urgent = async {
        let mut urgent = with(Priority::Interactive);
        urgent.extensions_mut().insert(Deadline::within(secs(10)));
        call(&layer, &provider, urgent).await.0
    };
    assert_eq!(urgent.await, 200, "whoever goes first has nobody before it");
    for call in batch {
        assert_eq!(call.await.unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_larger_than_its_limit_does_not_hold_up_those_behind_it() {
    let large = r#"{"error":{"message":"Request too large for m in organization o on tokens per min (TPM): Limit 30000, Requested 300000. The input or output tokens must be reduced in order to run successfully.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#;
    let invalid =
        r#"{"error":{"message":"max_tokens is too large: 300000","type":"invalid_request_error","code":null}}"#;
    for (status, body, headers) in [(429, large, false), (429, large, true), (400, invalid, true)] {
        let server = Server::new(move |n, _| {
            let reply = if n == 1 { Reply::status(status, body) } else { Reply::ok() };
            if n == 1 && !headers {
                return reply;
            }
            reply
                .header("x-ratelimit-limit-tokens", "30000")
                .header("x-ratelimit-remaining-tokens", "29900")
                .header("x-ratelimit-reset-tokens", "200ms")
        });
        let client = client(&layer(), &server);
        assert_eq!(send(&client, with(Cost::tokens(100.0))).await.status(), 200);
        tokio::time::advance(secs(5)).await;
        assert_eq!(send(&client, with(Cost::tokens(300_000.0))).await.status(), status);
        let began = Instant::now();
        assert_eq!(send(&client, with(Cost::tokens(100.0))).await.status(), 200);
        assert!(began.elapsed() <= secs(2), "{status}, headers {headers}: the next call waited {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn ten_idle_minutes_are_no_reason_to_be_throttled() {
    let mut throttled = 0;
    for seed in 1..=5 {
        let provider = Provider::builder()
            .requests(Limit::per_minute(500))
            .rate_headers(RateHeaders::None)
            .hints(Hints::Neither)
            .latency(Latency::internet())
            .service_time(ServiceTime::LogNormal { mean: secs(8), sigma: 0.5 })
            .seed(seed)
            .build();
        let layer = layer().seed(seed);
        assert_eq!(failed_of(&layer, &provider, 750).await, 0);
        let before = provider.seen().throttled();
        tokio::time::advance(secs(600)).await;
        assert_eq!(failed_of(&layer, &provider, 750).await, 0);
        throttled += provider.seen().throttled() - before;
    }
    // 123; 347 if the window that the first half left behind were still in force.
    assert!(throttled <= 225, "0.06 for each success: {throttled} of 3,750");
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_cancelled_hold_up_nobody() {
    let mut rng = fastrand::Rng::with_seed(7);
    let provider = Provider::builder()
        .requests(Limit::per_minute(500))
        .at_once(12)
        .latency(Latency::internet())
        .service_time(ServiceTime::Fixed(secs(1)))
        .build();
    let layer = layer();
    let calls: Vec<_> = (0..1_000)
        .map(|_| {
            let (layer, provider) = (layer.clone(), provider.clone());
            let cancel = (rng.f64() < 0.15).then(|| Duration::from_millis(rng.u64(0..100_000)));
            tokio::spawn(async move {
                let call = call(&layer, &provider, request());
                match cancel {
                    Some(after) => tokio::time::timeout(after, call).await.map_or(0, |answer| answer.0),
                    None => call.await.0,
                }
            })
        })
        .collect();
    let began = Instant::now();
    let mut cancelled = 0;
    for call in calls {
        match call.await.unwrap() {
            0 => cancelled += 1,
            status => assert_eq!(status, 200),
        }
    }
    assert!(cancelled > 50);
    let snapshot = layer.quotas().snapshot(key()).unwrap();
    assert_eq!((snapshot.in_flight, snapshot.queued, provider.in_flight()), (0, 0, 0));
    assert!(began.elapsed() < secs(100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_call_that_is_never_answered_or_cancelled_while_it_is_out_alone_holds_up_nobody() {
    // Nothing was let in before, so that the second attempt goes alone.
    for cancel in [false, true] {
        let server = Server::new(move |n, _| match n {
            0 => Reply::status(503, ""),
            1 => Reply::ok().after(secs(80_000)),
            _ => Reply::ok(),
        });
        let client = client(&layer(), &server);
        let first = tokio::spawn({
            let client = client.clone();
            async move {
                tokio::time::timeout(if cancel { ms(600) } else { secs(90_000) }, send(&client, request()))
                    .await
                    .is_ok()
            }
        });
        tokio::time::sleep(ms(10)).await;
        let outcomes = send_all(&client, (0..20).map(|_| request())).await;
        let longest = outcomes.iter().map(|outcome| outcome.head).max().unwrap();
        assert!(outcomes.iter().all(|outcome| outcome.status == 200));
        // A first wait of 0.25 to 0.5 s, and 0.35 s of silence or what the cancelled call had left.
        assert!(longest >= ms(590) && longest <= ms(900) || !cancel && longest <= ms(1_300), "{cancel}: {longest:?}");
        assert_eq!(first.await.unwrap(), !cancel);
    }
}

/// A server that throttles every other call, with such headers as `lie` makes of the call's number.
async fn behind_a_liar(lie: impl Fn(usize) -> [String; 3] + Send + Sync + 'static) -> (usize, Duration, usize) {
    let server = Server::new(move |n, _| {
        let [limit, remaining, reset] = lie(n);
        let reply = if n % 2 == 0 { Reply::bare() } else { Reply::ok() }.after(ms(20));
        reply
            .header("x-ratelimit-limit-requests", &limit)
            .header("x-ratelimit-remaining-requests", &remaining)
            .header("x-ratelimit-reset-requests", &reset)
    });
    let began = Instant::now();
    let outcomes = send_all(&client(&layer(), &server), (0..100).map(|_| request())).await;
    (server.count(), began.elapsed(), outcomes.iter().filter(|outcome| outcome.status == 200).count())
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_figures_are_nonsense_is_served_within_the_bounds() {
    let text = |parts: [&str; 3]| parts.map(str::to_owned);
    type Lie = Box<dyn Fn(usize) -> [String; 3] + Send + Sync>;
    let lies: [(&str, Lie); 8] = [
        ("refuses with plenty left", Box::new(move |_| text(["1000", "999", "60ms"]))),
        (
            "a reset that grows for ever",
            Box::new(|n| ["1000".into(), "500".into(), format!("{}s", 1_u64 << n.min(40))]),
        ),
        (
            "two limits in turn",
            Box::new(move |n| if n % 2 == 0 { text(["10", "9", "6s"]) } else { text(["10000", "1", "60s"]) }),
        ),
        ("more left than the limit", Box::new(move |_| text(["10", "1000", "6s"]))),
        ("negative", Box::new(move |_| text(["-1", "-1", "-1s"]))),
        ("beyond all measure", Box::new(move |_| text(["1e300", "1e299", "1000000000s"]))),
        ("nothing at all", Box::new(move |_| text(["0", "0", "0s"]))),
        ("no numbers", Box::new(move |_| text(["nan", "inf", "never"]))),
    ];
    for (what, lie) in lies {
        let (attempts, took, succeeded) = behind_a_liar(lie).await;
        assert!(attempts <= 600, "{what}: {attempts}");
        assert!(took <= secs(900), "{what}: {took:?}");
        assert!(succeeded >= 30, "{what}: {succeeded} of 100 in {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_said_to_fill_in_thirty_years_is_probed_after_max_wait() {
    let server = Server::new(|n, _| {
        let reply = Reply::ok().header("x-ratelimit-limit-requests", "60");
        let (remaining, reset) = if n == 0 { ("0", "1000000000s") } else { ("59", "1s") };
        reply.header("x-ratelimit-remaining-requests", remaining).header("x-ratelimit-reset-requests", reset)
    });
    let client = client(&layer(), &server);
    send(&client, request()).await;
    let outcomes = send_all(&client, (0..10).map(|_| request())).await;
    assert!(outcomes.iter().all(|outcome| outcome.throttle == Some(RejectReason::Cooldown) && outcome.head == secs(0)));
    tokio::time::advance(secs(120)).await;
    assert_eq!(send(&client, request()).await.status(), 200, "the probe");
    let outcomes = send_all(&client, (0..10).map(|_| request())).await;
    assert!(outcomes.iter().all(|outcome| outcome.status == 200), "its figures are sane");
    assert_eq!(server.count(), 12);
}

#[tokio::test(start_paused = true)]
async fn two_buckets_behind_one_key_lose_no_call() {
    // Two models, of which we are told that they share a limit, and the server thinks otherwise.
    let provider =
        Provider::builder().requests(Limit::per_minute(120)).service_time(ServiceTime::Fixed(ms(200))).build();
    let layer = layer();
    let calls: Vec<_> = (0..200)
        .map(|n| {
            let (layer, provider) = (layer.clone(), provider.clone());
            let mut request = unkeyed(if n % 2 == 0 { r#"{"model":"a"}"# } else { r#"{"model":"b"}"# });
            request.extensions_mut().insert(key());
            tokio::spawn(async move { call(&layer, &provider, request).await.0 })
        })
        .collect();
    let began = Instant::now();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert!(began.elapsed() < secs(120), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_queue_is_full_of_batch_calls_takes_an_interactive_one() {
    let server = Server::new(|_, _| Reply::ok().after(ms(50)));
    let client = client(&layer().pacing(PacingConfig::new().initial_window(1)).max_queue(2), &server);
    let classes = [vec![Priority::Batch; 5], vec![Priority::Interactive; 3]].concat();
    let outcomes = send_all(&client, classes.into_iter().map(with)).await;
    let full: Vec<_> = outcomes.iter().map(|outcome| outcome.throttle == Some(RejectReason::QueueFull)).collect();
    assert_eq!(full, [false, false, false, true, true, false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_full_answers_the_next_call_locally_and_throttled_calls_keep_their_place() {
    let server = Server::new(|n, _| if n == 0 { Reply::bare().after(ms(10)) } else { Reply::ok().after(ms(50)) });
    let layer = layer().pacing(PacingConfig::new().initial_window(1)).max_queue(3);
    let outcomes = send_all(&client(&layer, &server), (0..10).map(|_| request())).await;
    let full: Vec<_> = outcomes.iter().map(|outcome| outcome.throttle == Some(RejectReason::QueueFull)).collect();
    assert_eq!(full, [false, false, false, false, true, true, true, true, true, true]);
    assert!(outcomes[..4].iter().all(|outcome| outcome.status == 200), "the throttled one, too");
}
