//! How many keys are remembered, which are forgotten, and what becomes of calls when all are in use.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::Response;
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_429::quota::MAX_KEYS;
use tower_429::{NoRetry, QuotaEvent, QuotaKey, RejectReason, RetryOn429Layer};

use crate::support_retry::*;

fn to_model(model: impl std::fmt::Display) -> Req {
    let mut request = unkeyed("");
    *request.body_mut() = format!(r#"{{"model":"{model}"}}"#).into();
    request
}

fn model(seen: &Seen) -> String {
    String::from_utf8_lossy(&seen.body).split('"').nth(3).unwrap().to_owned()
}

fn keyed(key: &str) -> Req {
    with(QuotaKey::new(key))
}

fn watched(layer: RetryOn429Layer) -> (RetryOn429Layer, Arc<Mutex<Vec<QuotaEvent>>>) {
    let events: Arc<Mutex<Vec<QuotaEvent>>> = Arc::default();
    let seen = Arc::clone(&events);
    (layer.on_event(move |_, event| seen.lock().unwrap().push(*event)), events)
}

/// A server whose bodies do not end for models or keys that are held.
fn holding() -> Server {
    Server::new(|_, seen| match seen.parts.headers.get("x-hold") {
        Some(_) => Reply::body(200, Steps::new([Step::Stall])),
        None => Reply::ok(),
    })
}

fn held(mut request: Req) -> Req {
    request.headers_mut().insert("x-hold", "1".parse().unwrap());
    request
}

#[test]
fn eight_threads_that_call_a_hundred_thousand_models_leave_no_more_keys_than_the_bound() {
    const MODELS: usize = 112_397;
    let (layer, events) = watched(RetryOn429Layer::new());
    let inner = service_fn(|_: Req| {
        std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(Full::<bytes::Bytes>::default())))
    });
    let client = layer.layer(inner);
    let next = AtomicUsize::new(0);
    let most = AtomicUsize::new(0);
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n >= MODELS {
                        return;
                    }
                    let mut call = std::pin::pin!(client.clone().oneshot(to_model(n)));
                    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                    assert!(call.as_mut().poll(&mut cx).is_ready());
                    most.fetch_max(layer.quotas().len(), Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!((layer.quotas().len(), most.into_inner()), (MAX_KEYS, MAX_KEYS));
    assert_eq!(*events.lock().unwrap(), [], "at most eight were in use at once");
}

#[tokio::test(start_paused = true)]
async fn while_all_keys_are_in_use_calls_of_other_keys_are_served_and_not_remembered() {
    let server = holding();
    let (layer, events) = watched(layer().max_keys(2));
    let client = client(&layer, &server);
    let quotas = layer.quotas();
    let mut open = vec![send(&client, held(keyed("a"))).await, send(&client, held(keyed("b"))).await];
    for n in 0..100 {
        assert_eq!(read(send(&client, with(QuotaKey::new(n))).await).await, "{}");
    }
    assert_eq!(quotas.len(), 2);
    let too_many = QuotaEvent::TooManyKeys { max_keys: 2 };
    assert_eq!(*events.lock().unwrap(), [too_many], "once, not for each call");

    // A key that is not in use any more makes room.
    open.pop();
    read(send(&client, keyed("c")).await).await;
    assert!(quotas.snapshot(QuotaKey::new("c")).is_some() && quotas.snapshot(QuotaKey::new("b")).is_none());
    assert_eq!(events.lock().unwrap().len(), 1);

    // Another minute without such a call, and it is worth telling again.
    open.push(send(&client, held(keyed("c"))).await);
    for (wait, told) in [(secs(59), 1), (secs(59), 1), (secs(60), 2), (secs(0), 2)] {
        tokio::time::advance(wait).await;
        read(send(&client, keyed("d")).await).await;
        assert_eq!(*events.lock().unwrap(), vec![too_many; told]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_remembered_is_retried_by_what_its_own_429s_teach() {
    let server = Server::new(|n, _| match n {
        0 => Reply::body(200, Steps::new([Step::Stall])),
        1 => Reply::bare().header("retry-after", "3"),
        _ => Reply::ok(),
    });
    let layer = layer().max_keys(1);
    let client = client(&layer, &server);
    let _held = send(&client, keyed("a")).await;
    let answer = send(&client, keyed("b")).await;
    assert_eq!((answer.status().as_u16(), info(&answer).unwrap().attempts, server.count()), (200, 2, 3));
    assert_hinted(server.times()[2], secs(3), "its own hint");
    assert!(layer.quotas().snapshot(QuotaKey::new("b")).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_bound_of_none_counts_as_one() {
    let layer = layer().max_keys(0);
    let client = client(&layer, &holding());
    for key in ["a", "b"] {
        read(send(&client, keyed(key)).await).await;
    }
    assert_eq!(layer.quotas().len(), 1);
    assert!(layer.quotas().snapshot(QuotaKey::new("b")).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_learned_window_a_cooldown_and_a_closure_are_forgotten_last() {
    let server = Server::new(|_, seen| match seen.parts.headers.get("x-what").map(|what| what.as_bytes()) {
        Some(b"learned") => Reply::status(429, AT_ONCE),
        Some(b"cooling") => Reply::bare().header("retry-after", "100"),
        Some(b"closed") => Reply::status(429, NO_QUOTA),
        _ => Reply::ok(),
    });
    let layer = layer().max_keys(6).max_retries(0);
    let client = client(&layer, &server);
    let quotas = layer.quotas();
    let worth = ["learned", "cooling", "closed"];
    for what in worth {
        let mut request = keyed(what);
        request.headers_mut().insert("x-what", what.parse().unwrap());
        request.extensions_mut().insert(NoRetry);
        read(send(&client, request).await).await;
    }
    let known = |what: &str| quotas.snapshot(QuotaKey::new(what)).is_some();
    for n in 0..100 {
        read(send(&client, keyed(&n.to_string())).await).await;
        assert_eq!((quotas.len(), worth.map(known)), ((n + 4).min(6), [true; 3]), "{n}");
    }
    assert!(known("99") && known("98") && known("97") && !known("96"));
    // When nothing else can go, the one that was used longest ago does.
    let _held = [send(&client, keyed("97")).await, send(&client, keyed("98")).await, send(&client, keyed("99")).await];
    send(&client, keyed("100")).await;
    assert_eq!(worth.map(known), [false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn an_account_without_quota_stays_closed_when_its_keys_are_forgotten() {
    let server = Server::new(|_, seen| match model(seen).as_str() {
        "a" => Reply::status(429, NO_QUOTA),
        _ => Reply::ok(),
    });
    let layer = layer().max_keys(1);
    let client = client(&layer, &server);
    send(&client, to_model("a")).await;
    read(send(&client, keyed("another's")).await).await;
    assert_eq!(layer.quotas().len(), 1);
    for model in ["b", "a", "c"] {
        assert_eq!(throttle(&send(&client, to_model(model)).await), Some(RejectReason::QuotaExhausted), "{model}");
    }
    assert_eq!(server.count(), 2);
    // A probe of any key opens it.
    tokio::time::advance(secs(31)).await;
    for model in ["b", "c", "d"] {
        assert_eq!(send(&client, to_model(model)).await.status(), 200, "{model}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_remembered_closes_its_account_all_the_same() {
    let server = Server::new(|n, _| match n {
        0 => Reply::body(200, Steps::new([Step::Stall])),
        _ => Reply::status(429, NO_QUOTA),
    });
    let layer = layer().max_keys(1);
    let client = client(&layer, &server);
    let _held = send(&client, keyed("another's")).await;
    assert_eq!(throttle(&send(&client, to_model("a")).await), None, "the server's own");
    for model in ["a", "b"] {
        assert_eq!(throttle(&send(&client, to_model(model)).await), Some(RejectReason::QuotaExhausted), "{model}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_models_first_called_when_a_probe_is_due_one_probes() {
    let server = Server::new(|_, _| Reply::status(429, NO_QUOTA).after(ms(100)));
    let client = client(&layer(), &server);
    send(&client, to_model("a")).await;
    tokio::time::advance(secs(31)).await;
    let outcomes = send_all(&client, (0..20).map(to_model)).await;
    let local = outcomes.iter().filter(|outcome| outcome.throttle == Some(RejectReason::QuotaExhausted)).count();
    assert_eq!((local, server.count()), (19, 2));
}
