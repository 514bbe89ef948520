//! Errors inside successes: who judges them, which keys they close, and when that is told.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use http::Method;
use http_body_util::BodyExt;
use tower_429::classify::{Kind, Verdict};
use tower_429::{Dialect, QuotaEvent, QuotaKey, RejectReason, RetryOn429Layer};

use crate::support_retry::*;

const JSON: &str = "application/json";
const SSE: &str = "text/event-stream";
const QUOTA_EVENT: &str =
    "data: {\"error\":{\"message\":\"No.\",\"type\":\"insufficient_quota\",\"code\":\"insufficient_quota\"}}\n\n";
const DELTA: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n";

/// An answer with status 200 that comes in these frames.
fn frames(kind: &str, frames: &[&'static str]) -> Reply {
    let steps = frames.iter().map(|frame| Step::Data((*frame).into()));
    Reply::body(200, Steps::new(steps)).header("content-type", kind)
}

fn to_model(model: &str) -> Req {
    let mut request = unkeyed("");
    *request.body_mut() = format!(r#"{{"model":"{model}"}}"#).into();
    request
}

type Events = Arc<Mutex<Vec<(QuotaKey, QuotaEvent)>>>;

fn watched(layer: RetryOn429Layer) -> (RetryOn429Layer, Events) {
    let events: Events = Arc::default();
    let seen = Arc::clone(&events);
    (layer.on_event(move |key, event| seen.lock().unwrap().push((key, *event))), events)
}

const fn closed(after: u64) -> QuotaEvent {
    QuotaEvent::Closed { quota: true, retry_after: secs(after) }
}

/// Sends one call, reads its answer, and tells why the next one is not sent, if it is not.
async fn then(layer: &RetryOn429Layer, reply: Reply, method: Method) -> Option<RejectReason> {
    let client = client(layer, &Server::saying([reply]));
    let mut first = request();
    *first.method_mut() = method;
    read(send(&client, first).await).await;
    throttle(&send(&client, request()).await)
}

#[tokio::test(start_paused = true)]
async fn a_key_that_an_event_closes_is_told_of_at_once_and_so_are_the_other_keys_of_its_account() {
    let server = Server::new(|n, _| if n < 2 { Reply::ok() } else { frames(SSE, &[DELTA, QUOTA_EVENT, DELTA]) });
    let (layer, events) = watched(layer());
    let client = client(&layer, &server);
    for model in ["b", "c"] {
        send(&client, to_model(model)).await;
    }
    let mut answer = send(&client, to_model("a")).await;
    answer.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(*events.lock().unwrap(), [], "the first event is no error");
    answer.body_mut().frame().await.unwrap().unwrap();
    let told: Vec<_> = events.lock().unwrap().clone();
    assert_eq!(told[0].1, closed(30), "the key that was told comes first");
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|(_, event)| matches!(event, QuotaEvent::Closed { quota: true, .. })), "{told:?}");
    assert_eq!(throttle(&send(&client, to_model("b")).await), Some(RejectReason::QuotaExhausted));
    assert_eq!(read(answer).await, DELTA, "the rest is handed on");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_first_met_while_its_account_is_closed_is_told_of_with_its_first_answer() {
    let (layer, events) = watched(layer());
    let client = client(&layer, &Server::saying([Reply::status(429, NO_QUOTA)]));
    send(&client, to_model("a")).await;
    assert_eq!(events.lock().unwrap().len(), 1);
    assert_eq!(throttle(&send(&client, to_model("new")).await), Some(RejectReason::QuotaExhausted));
    assert_eq!(events.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn errors_in_bodies_are_read_in_the_dialect_of_the_key() {
    const NO_BALANCE: &str = r#"{"id":"x","choices":null,"created":0,"model":"","usage":{"total_tokens":0},"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}"#;
    const DAILY: &str = r#"{"error_code":17,"error_msg":"Open api daily request limit reached","id":"x"}"#;
    const ALLOCATED: &str = r#"{"error":{"message":"m","code":"insufficient_quota"}}"#;
    for (dialect, body, quota) in [
        (&Dialect::MINIMAX, NO_BALANCE, true),
        (&Dialect::BAIDU, DAILY, true),
        (&Dialect::OPENAI, ALLOCATED, true),
        (&Dialect::DASHSCOPE, ALLOCATED, false),
    ] {
        for kind in [JSON, SSE] {
            let body = if kind == SSE { format!("data: {body}\n\n") } else { body.to_owned() };
            let reply = Reply::status(200, body.clone()).header("content-type", kind);
            let reason = then(&layer().dialect(dialect), reply, Method::POST).await;
            assert_eq!(reason, quota.then_some(RejectReason::QuotaExhausted), "{} {kind}: {body}", dialect.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn errors_in_bodies_go_through_the_classifier_of_the_user() {
    for (says, reason) in [
        (None, Some(RejectReason::QuotaExhausted)),
        (Some(Verdict::new(Kind::Pass)), None),
        (Some(Verdict::new(Kind::RateLimited).with_retry_after(secs(7_200))), Some(RejectReason::Cooldown)),
    ] {
        for (kind, body) in [(JSON, QUOTA_EVENT.trim_start_matches("data: ")), (SSE, QUOTA_EVENT)] {
            let said = says.clone();
            let asked: Arc<Mutex<Vec<String>>> = Arc::default();
            let seen = Arc::clone(&asked);
            let layer = layer().classify(move |head, body| {
                assert_eq!((head.status.as_u16(), &head.headers["x-region"]), (200, &"eu".parse().unwrap()));
                seen.lock().unwrap().push(String::from_utf8_lossy(body).trim_end().to_owned());
                said.clone()
            });
            assert_eq!(then(&layer, frames(kind, &[body]).header("x-region", "eu"), Method::POST).await, reason);
            assert_eq!(*asked.lock().unwrap(), [body.trim_end()], "asked once, of the error alone");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_peeked_at_is_judged_like_one_that_is_not() {
    let event = "data: {\"base_resp\":{\"status_code\":1008,\"status_msg\":\"m\"}}\n\n";
    let peeks = || layer().peek_first_event(true);
    let reason = then(&peeks().dialect(&Dialect::MINIMAX), frames(SSE, &[event]), Method::POST).await;
    assert_eq!(reason, Some(RejectReason::QuotaExhausted));
    let passes = peeks().classify(|_, _| Some(Verdict::new(Kind::Pass)));
    assert_eq!(then(&passes, frames(SSE, &[QUOTA_EVENT]), Method::POST).await, None);
    assert_eq!(then(&peeks(), frames(SSE, &[QUOTA_EVENT]), Method::GET).await, None);
}

#[tokio::test(start_paused = true)]
async fn only_answers_to_post_that_are_an_error_and_nothing_else_close_a_key() {
    let error = r#""error":{"message":"You exceeded your current quota.","code":"insufficient_quota"}"#;
    for (members, closes) in [
        ("", true),
        (r#""type":"error","request_id":"req_1""#, true),
        (r#""id":"gen-1","object":"chat.completion","model":"m","choices":[],"usage":null,"user_id":"u""#, true),
        (r#""id":"resp_1","object":"response","status":"failed","temperature":1.0,"tools":[{}]"#, true),
        (r#""id":"resp_1","object":"response","status":"completed","output":[{"type":"message"}]"#, false),
        (r#""rows":[{"name":"x"}]"#, false),
        (r#""name":"nightly run""#, false),
    ] {
        let body = if members.is_empty() { format!("{{{error}}}") } else { format!("{{{members},{error}}}") };
        for method in [Method::POST, Method::GET, Method::PUT] {
            let reply = Reply::status(200, body.clone()).header("content-type", JSON);
            let expected = (closes && method == Method::POST).then_some(RejectReason::QuotaExhausted);
            assert_eq!(then(&layer(), reply, method.clone()).await, expected, "{method} {body}");
        }
    }
    let lines = [format!("[{{{error}}}]"), format!("[{{{error}}},{{{error}}}]"), format!("{{{error}}} {{}}")];
    for (body, closes) in lines.into_iter().zip([true, false, false]) {
        let reply = Reply::status(200, body.clone()).header("content-type", JSON);
        assert_eq!(then(&layer(), reply, Method::POST).await.is_some(), closes, "{body}");
    }
    assert_eq!(then(&layer(), frames(SSE, &[QUOTA_EVENT]), Method::GET).await, None, "a stored stream");
}

#[tokio::test(start_paused = true)]
async fn a_probe_opens_its_key_only_when_its_body_shows_no_error() {
    let error = &QUOTA_EVENT["data: ".len()..];
    for (kind, bad, good, opened_by) in
        [(SSE, QUOTA_EVENT, DELTA, 1), (JSON, error, "{\"choices\":[]}", 2), (JSON, error, "{}", 2)]
    {
        let server = Server::new(move |n, _| match n {
            0 => Reply::status(429, NO_QUOTA),
            1 => frames(kind, &[bad]),
            _ => frames(kind, if kind == SSE { &[DELTA, DELTA] } else { &["  ", "{}"] }),
        });
        let (layer, events) = watched(layer());
        let client = client(&layer, &server);
        let told = || events.lock().unwrap().iter().map(|(_, event)| *event).collect::<Vec<_>>();
        send(&client, request()).await;
        tokio::time::advance(secs(30)).await;
        let probe = send(&client, request()).await;
        assert_eq!(
            throttle(&send(&client, request()).await),
            Some(RejectReason::QuotaExhausted),
            "a head opens nothing"
        );
        read(probe).await;
        assert_eq!(told(), [closed(30)], "{kind} {good}");
        tokio::time::advance(secs(59)).await;
        assert_eq!(throttle(&send(&client, request()).await), Some(RejectReason::QuotaExhausted), "twice as long");
        tokio::time::advance(secs(1)).await;
        let mut probe = send(&client, request()).await;
        for n in 1..=2 {
            assert_eq!(told().len(), 1, "frame {n}");
            probe.body_mut().frame().await.unwrap().unwrap();
            if n == opened_by {
                break;
            }
        }
        assert_eq!(told(), [closed(30), QuotaEvent::Opened], "{kind}");
        assert_eq!(throttle(&send(&client, request()).await), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_body_is_dropped_unread_leaves_the_next_call_to_probe() {
    let server = Server::saying([Reply::status(429, NO_QUOTA), frames(JSON, &["{}"]), frames(JSON, &["{}"])]);
    let client = client(&layer(), &server);
    send(&client, request()).await;
    tokio::time::advance(secs(30)).await;
    drop(send(&client, request()).await);
    tokio::time::advance(secs(1)).await; // probes are a second apart
    read(send(&client, request()).await).await;
    assert_eq!(throttle(&send(&client, request()).await), None);
    assert_eq!(server.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_in_a_body_loses_no_permit_and_spares_no_key_of_the_account() {
    for body in [&[QUOTA_EVENT] as &[_], &[DELTA, QUOTA_EVENT, DELTA]] {
        let server = Server::new(move |n, _| if n == 0 { Reply::ok() } else { frames(SSE, body) });
        let layer = layer().on_event(|_, _| panic!("a bug of the listener's"));
        let client = client(&layer, &server);
        read(send(&client, to_model("b")).await).await;
        let mut request = to_model("a");
        request.extensions_mut().insert(tower_429::Priority::Batch);
        let answer = send(&client, request).await;
        assert!(AssertUnwindSafe(answer.into_body().collect()).catch_unwind().await.is_err());
        let key = |model: &str| {
            let (parts, _) = to_model(model).into_parts();
            QuotaKey::of(&parts, model)
        };
        for model in ["a", "b"] {
            assert_eq!(layer.quotas().snapshot(key(model)).unwrap().in_flight, 0, "{model}");
            let local = AssertUnwindSafe(send(&client, to_model(model))).catch_unwind().await;
            assert_eq!(throttle(&local.unwrap()), Some(RejectReason::QuotaExhausted), "{model}");
        }
    }
}
