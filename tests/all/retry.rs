//! What is sent again, how often, and what is said of it.

use tower::Service;
use tower_429::{Deadline, LocalRejection, NoRetry, PacingConfig, RejectReason, ResendCount, RetryOn, StopReason};

use crate::support_retry::*;

const LARGE: &str = r#"{"error":{"message":"Request too large for m in organization o on tokens per min (TPM): Limit 30000, Requested 40000.","type":"tokens","code":"rate_limit_exceeded"}}"#;
const FAULT: &str =
    r#"{"error":{"message":"The server had an error while processing your request.","type":"server_error"}}"#;

#[test]
fn retries_without_a_delay_let_other_tasks_run() {
    crate::support_limit::watched(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let _guard = runtime.enter();
        let layer = layer().pacing(PacingConfig::off()).backoff(ms(0), ms(0)).max_retries(u32::MAX);
        let layer = layer.retry_on(RetryOn::openai_sdk()).max_other_retries(u32::MAX);
        for status in [429, 500] {
            let server = Server::new(move |_, _| Reply::status(status, "{}"));
            let mut call = tokio_test::task::spawn(client(&layer, &server).call(request()));
            for attempt in 1..=50 {
                tokio_test::assert_pending!(call.poll());
                assert_eq!((server.count(), call.is_woken()), (attempt, true), "one attempt a turn");
            }
        }
    });
}

#[tokio::test(start_paused = true)]
async fn every_answer_that_throttles_is_sent_again_and_no_other() {
    use StopReason::{Permanent, ServerSaidNo};
    for (status, header, body, again, stopped) in [
        (429, "", BARE, true, None),
        (429, "", "", true, None),
        (429, "", AT_ONCE, true, None),
        (
            429,
            "",
            r#"{"error":{"message":"The engine is currently overloaded","code":"engine_overloaded"}}"#,
            true,
            None,
        ),
        (503, "", "", true, None),
        (529, "", r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, true, None),
        (498, "", "", true, None),
        (500, "true", FAULT, true, None),
        (404, "true", "", true, None),
        (429, "", NO_QUOTA, false, Some(Permanent)),
        (402, "", "", false, Some(Permanent)),
        (429, "", LARGE, false, Some(Permanent)),
        (413, "", "", false, Some(Permanent)),
        (429, "true", NO_QUOTA, false, Some(Permanent)),
        (429, "false", BARE, false, Some(ServerSaidNo)),
        (503, "false", "", false, Some(ServerSaidNo)),
        (408, "", "", false, None),
        (409, "", "", false, None),
        (500, "", FAULT, false, None),
        (502, "", "", false, None),
        (504, "", "", false, None),
        (500, "false", FAULT, false, Some(ServerSaidNo)),
        (400, "", "{}", false, None),
        (401, "", "{}", false, None),
        (404, "false", "{}", false, None),
        (301, "", "", false, None),
        (204, "", "", false, None),
    ] {
        let reply = Reply::status(status, body);
        let reply = if header.is_empty() { reply } else { reply.header("x-should-retry", header) };
        let server = Server::saying([reply]);
        let answer = send(&client(&layer(), &server), request()).await;
        let what = format!("{status} {header} {body}");
        assert_eq!(server.count(), if again { 2 } else { 1 }, "{what}");
        assert_eq!(answer.status(), if again { 200 } else { status }, "{what}");
        assert_eq!(info(&answer).and_then(|info| info.stopped), stopped, "{what}");
        assert_eq!(info(&answer).is_some(), again || stopped.is_some(), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_failures_are_sent_again_only_on_request_and_twice_at_most() {
    for (failure, status) in [(408, 408), (409, 409), (500, 500), (502, 502), (504, 504), (0, 0)] {
        let server = Server::new(move |_, _| match failure {
            0 => Reply::broken("reset by peer"),
            status => Reply::status(status, ""),
        });
        let sdk = layer().retry_on(RetryOn::openai_sdk());
        match try_send(&client(&sdk, &server), request()).await {
            Ok(answer) => {
                assert_eq!(answer.status(), status);
                assert_eq!(info(&answer).unwrap().stopped, Some(StopReason::RetriesSpent));
            }
            Err(error) => assert_eq!((error, status), (Broken("reset by peer"), 0)),
        }
        assert_eq!(server.count(), 3, "{failure}");
        let plain = Server::new(move |_, _| Reply::broken("reset by peer"));
        assert!(try_send(&client(&layer(), &plain), request()).await.is_err());
        assert_eq!(plain.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_beyond_what_is_waited_for_goes_before_the_servers_yes_and_after_its_no() {
    for (should_retry, stopped) in [("true", StopReason::HintTooLong), ("false", StopReason::ServerSaidNo)] {
        let server =
            Server::new(move |_, _| Reply::bare().header("retry-after", "121").header("x-should-retry", should_retry));
        let answer = send(&client(&layer(), &server), request()).await;
        assert_eq!(info(&answer).unwrap().stopped, Some(stopped));
        assert_eq!(info(&answer).unwrap().retry_after, Some(secs(121)));
        assert_eq!(server.times(), [ms(0)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_call_is_sent_six_times_and_then_its_last_429_is_handed_back() {
    let server = Server::new(|n, _| Reply::status(429, format!("throttle {n}")).header("x-n", &n.to_string()));
    let answer = send(&client(&layer(), &server), request()).await;
    assert_eq!(server.count(), 6);
    assert_eq!(answer.headers()["x-n"], "5");
    let info = info(&answer).unwrap();
    assert_eq!((info.attempts, info.stopped), (6, Some(StopReason::RetriesSpent)));
    assert_eq!(info.waited, server.seen()[5].at, "all that passed was waiting");
    assert_eq!(read(answer).await, "throttle 5");
}

#[tokio::test(start_paused = true)]
async fn without_retries_a_429_is_handed_back_at_once() {
    let server = Server::new(|_, _| Reply::bare());
    let answer = send(&client(&layer().max_retries(0), &server), request()).await;
    assert_eq!((server.times(), answer.status().as_u16()), (vec![ms(0)], 429));
    assert_eq!(info(&answer).unwrap().stopped, Some(StopReason::RetriesSpent));
}

#[tokio::test(start_paused = true)]
async fn when_the_next_sleep_would_not_fit_the_429_is_handed_back_now() {
    let server = Server::new(|_, _| Reply::bare().header("retry-after", "50"));
    let answer = send(&client(&layer(), &server), request()).await;
    // Two sleeps of 50 to 55 s fit into 120 s, a third does not.
    assert_eq!(server.count(), 3);
    assert_eq!(info(&answer).unwrap().stopped, Some(StopReason::SleepSpent));
    assert!(server.seen()[2].at <= secs(110));
    assert_eq!(info(&answer).unwrap().waited, server.seen()[2].at, "it did not sleep once more");
}

#[tokio::test(start_paused = true)]
async fn a_sleep_that_ends_after_the_deadline_is_not_begun() {
    let server = Server::new(|_, _| Reply::bare().header("retry-after", "6").after(ms(500)));
    let answer = send(&client(&layer(), &server), with(Deadline::within(secs(10)))).await;
    assert_eq!(info(&answer).unwrap().stopped, Some(StopReason::Deadline));
    assert_eq!(answer.status(), 429);
    assert_eq!(server.count(), 2, "6 to 7.5 s, once; a second time ends after 13 s");
    assert_eq!(throttle(&answer), None, "it is the server's own throttle");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_is_answered_locally_without_being_sent() {
    let server = Server::saying([]);
    let late = with(Deadline::within(secs(1)));
    tokio::time::advance(secs(2)).await;
    let answer = send(&client(&layer(), &server), late).await;
    assert_eq!((throttle(&answer), server.count()), (Some(RejectReason::Deadline), 0));
    let stopped = info(&answer).unwrap();
    assert_eq!((stopped.attempts, stopped.stopped), (0, Some(StopReason::Local)));
}

#[tokio::test(start_paused = true)]
async fn sleeping_after_a_429_is_no_time_in_the_queue_but_what_follows_is() {
    let server = Server::saying([Reply::bare().header("retry-after", "30")]);
    let answer = send(&client(&layer().queue_timeout(secs(6)), &server), request()).await;
    assert_eq!((answer.status().as_u16(), server.count()), (200, 2));

    // Each takes 20 s: who waits longer than 3 s for its turn is answered locally, and never sent.
    let server = Server::new(|_, _| Reply::ok().after(secs(20)));
    let client = client(&layer().pacing(PacingConfig::new().initial_window(1)).queue_timeout(secs(3)), &server);
    let outcomes = send_all(&client, (0..600).map(|_| request())).await;
    let late: Vec<_> = outcomes.iter().filter(|outcome| outcome.status != 200).collect();
    assert!(late.iter().all(|outcome| outcome.throttle == Some(RejectReason::QueueTimeout) && outcome.head == secs(3)));
    assert_eq!(server.count(), 600 - late.len());
    assert!(late.len() > 50 && server.count() > 50, "the window is doubled by silence: {}", late.len());
}

#[tokio::test(start_paused = true)]
async fn retries_of_server_errors_draw_on_one_budget() {
    let server = Server::new(|_, _| Reply::status(500, "").after(ms(1)));
    let sdk = layer().retry_on(RetryOn::openai_sdk()).pacing(PacingConfig::off()).max_other_retries(1_000);
    let outcomes = send_all(&client(&sdk, &server), (0..300).map(|_| request())).await;
    let spent =
        outcomes.iter().filter(|outcome| outcome.info.as_ref().unwrap().stopped == Some(StopReason::BudgetSpent));
    assert_eq!(spent.count(), 300);
    // 100 saved, and one for each second that it took.
    let took = server.times().last().unwrap().as_secs() as usize;
    assert!((100..=101 + took).contains(&(server.count() - 300)), "{} in {took} s", server.count() - 300);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_sent_again_says_how_often_it_was_sent() {
    let server = Server::saying([Reply::bare(), Reply::bare()]);
    let name = http::HeaderName::from_static("x-retry-count");
    send(&client(&layer().retry_count_header(name), &server), request()).await;
    let said: Vec<_> =
        server.seen().iter().map(|seen| (seen.resend, seen.parts.headers.get("x-retry-count").cloned())).collect();
    let number = |n: &'static str| Some(http::HeaderValue::from_static(n));
    assert_eq!(said, [(None, None), (Some(ResendCount(1)), number("1")), (Some(ResendCount(2)), number("2"))]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_does_not_want_to_be_sent_again_is_not() {
    let server = Server::new(|_, _| Reply::bare().header("retry-after", "7"));
    let answer = send(&client(&layer(), &server), with(NoRetry)).await;
    assert_eq!(server.times(), [ms(0)]);
    let stopped = info(&answer).unwrap();
    assert_eq!((stopped.stopped, stopped.retry_after), (Some(StopReason::RetryDisabled), Some(secs(7))));
}

#[tokio::test(start_paused = true)]
async fn one_layer_within_another_does_not_multiply_the_attempts() {
    use tower::{Layer, ServiceExt};
    for mark_final in [false, true] {
        let server = Server::new(|_, _| Reply::bare());
        let both = layer().mark_final(mark_final);
        let nested = both.layer(layer().mark_final(mark_final).layer(server.clone()));
        let answer = nested.oneshot(request()).await.unwrap();
        assert_eq!(server.count(), 6, "mark_final {mark_final}");
        assert_eq!(info(&answer).unwrap().stopped, Some(StopReason::RetriesSpent));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_handed_back_for_good_is_marked_for_the_clients_behind_a_gateway() {
    let marked = |answer: &Answer| answer.headers().get("x-should-retry").is_some_and(|no| no == "false");
    let gateway = layer().mark_final(true).max_retries(1);
    for (status, expected) in
        [(429, true), (503, true), (402, true), (200, false), (404, false), (408, false), (409, false), (500, false)]
    {
        let server = Server::new(move |_, _| Reply::status(status, ""));
        let answer = send(&client(&gateway, &server), with(tower_429::QuotaKey::new(status))).await;
        assert_eq!(marked(&answer), expected, "{status}");
    }
    let server = Server::new(|_, _| Reply::status(500, ""));
    let answer = send(&client(&gateway.clone().retry_on(RetryOn::openai_sdk()), &server), request()).await;
    assert!(marked(&answer), "a 500 is handled where the user asks for it");
    let server = Server::saying([]);
    let late = with(Deadline::within(ms(0)));
    let answer = send(&client(&gateway, &server), late).await;
    assert!(marked(&answer), "a local answer, too");
}

#[tokio::test(start_paused = true)]
async fn all_attempts_of_a_call_carry_one_idempotency_key_and_another_call_another() {
    let server = Server::saying([Reply::bare(), Reply::bare()]);
    let name = http::HeaderName::from_static("idempotency-key");
    let client = client(&layer().idempotency_key(name), &server);
    send(&client, request()).await;
    send(&client, request()).await;
    let mut own = request();
    own.headers_mut().insert("idempotency-key", "mine".parse().unwrap());
    send(&client, own).await;
    let keys: Vec<_> = server.seen().iter().map(|seen| seen.parts.headers["idempotency-key"].clone()).collect();
    assert_eq!(keys.len(), 5);
    assert!(keys[0] == keys[1] && keys[1] == keys[2]);
    assert_ne!(keys[2], keys[3]);
    assert_eq!(keys[4], "mine");
}

#[tokio::test(start_paused = true)]
async fn a_429_of_our_own_from_below_is_handed_up_at_once_and_teaches_nothing() {
    let ours = tower_429::ConcurrencyLimitLayer::new(1).max_queue(0);
    let server = Server::new(|_, _| Reply::ok().after(secs(1)));
    let layer = layer();
    let mut stack = tower::Layer::layer(&layer, tower::Layer::layer(&ours, server.clone()));
    let first = stack.call(request());
    let first = tokio::spawn(first);
    tokio::task::yield_now().await;
    let before = layer.quotas().snapshot(key()).unwrap();
    let answer = stack.call(request()).await.unwrap();
    assert_eq!(answer.extensions().get::<LocalRejection>().unwrap().reason, RejectReason::QueueFull);
    assert_eq!(info(&answer).unwrap().stopped, Some(StopReason::Local));
    assert_eq!(layer.quotas().snapshot(key()).unwrap(), before);
    assert!(first.await.unwrap().is_ok());
    assert_eq!(server.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_429_of_another_process_of_ours_counts_as_overloaded() {
    let body = r#"{"error":{"message":"Not sent: the queue is full. Send fewer calls at a time, or raise max_queue.","type":"requests","code":"local_queue_full"}}"#;
    let server = Server::saying([Reply::status(429, body)]);
    let answer = send(&client(&layer(), &server), request()).await;
    assert_eq!((answer.status().as_u16(), server.count()), (200, 2));
    assert_eq!(info(&answer).unwrap().verdict.unwrap().kind, tower_429::classify::Kind::Overloaded);
}

#[tokio::test(start_paused = true)]
async fn without_pacing_many_calls_at_once_have_as_many_attempts_as_few() {
    for calls in [1, 64] {
        let server = Server::new(|_, _| Reply::bare().after(ms(10)));
        let layer = layer().pacing(PacingConfig::off()).max_retries(2).backoff(ms(10), ms(10));
        send_all(&client(&layer, &server), (0..calls).map(|_| request())).await;
        assert_eq!(server.count(), 3 * calls, "one attempt and two retries of each of {calls}");
    }
}
