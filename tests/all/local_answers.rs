//! What we answer ourselves: the server's own words while a quota is used up, and what a client behind a proxy makes of it.

use http::Response;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_429::classify::Kind;
use tower_429::{ConcurrencyLimitLayer, Deadline, LocalRejection, QuotaEvent, RejectReason, RetryInfo, StopReason};

use crate::support_retry::*;

fn to_model(model: &str) -> Req {
    let mut request = unkeyed("");
    *request.body_mut() = format!(r#"{{"model":"{model}"}}"#).into();
    request
}

/// The reason in the header, the error's type and code.
async fn words(answer: Answer) -> (String, Value, Value) {
    let reason = answer.headers()["x-tower-429-local"].to_str().unwrap().to_owned();
    let body: Value = serde_json::from_slice(&read(answer).await).unwrap();
    (reason, body["error"]["type"].clone(), body["error"]["code"].clone())
}

/// What a call is answered with when the one before it was answered with this.
async fn local_after(status: u16, body: &str) -> (String, Value, Value) {
    let client = client(&layer(), &Server::saying([Reply::status(status, body.to_owned())]));
    send(&client, request()).await;
    words(send(&client, request()).await).await
}

#[tokio::test(start_paused = true)]
async fn while_a_quota_is_used_up_local_answers_keep_the_servers_type_and_code() {
    let long = "a".repeat(65);
    let just = "a".repeat(64);
    let of_code = |code: &str| format!(r#"{{"error":{{"message":"insufficient balance","type":"t","code":{code}}}}}"#);
    let own = json!("local_quota_exhausted");
    for (status, body, error_type, code) in [
        (429, NO_QUOTA.to_owned(), json!("insufficient_quota"), json!("insufficient_quota")),
        (402, of_code("\"Payment-Required.v2\""), json!("t"), json!("Payment-Required.v2")),
        (402, of_code("402"), json!("t"), json!(402)),
        (402, of_code(&format!("\"{just}\"")), json!("t"), json!(just)),
        (402, of_code(&format!("\"{long}\"")), json!("t"), own.clone()),
        (402, of_code("\"a b\""), json!("t"), own.clone()),
        (402, of_code("\"a\\u0022\""), json!("t"), own.clone()),
        (402, of_code("\"\""), json!("t"), own.clone()),
        (402, of_code("null"), json!("t"), own.clone()),
        (402, of_code("[1]"), json!("t"), own.clone()),
        (402, of_code("1.5"), json!("t"), own.clone()),
        (402, of_code("-1"), json!("t"), own.clone()),
        (402, String::new(), json!("requests"), own.clone()),
        (402, "<html>Payment required</html>".to_owned(), json!("requests"), own.clone()),
        (402, r#"{"error":{"code":"cut"#.to_owned(), json!("requests"), own.clone()),
        (429, r#"{"code":"Arrearage","message":"overdue"}"#.to_owned(), json!("requests"), json!("Arrearage")),
        (
            429,
            r#"{"type":"error","error":{"type":"billing_error","message":"Your credit balance is too low"}}"#
                .to_owned(),
            json!("billing_error"),
            own.clone(),
        ),
    ] {
        let expected = ("quota_exhausted".to_owned(), error_type, code);
        assert_eq!(local_after(status, &body).await, expected, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_servers_verdict_is_in_the_info_of_local_answers_of_each_key_of_the_account() {
    let server =
        Server::new(|_, seen| if seen.body.ends_with(b"\"a\"}") { Reply::status(429, NO_QUOTA) } else { Reply::ok() });
    let client = client(&layer(), &server);
    send(&client, to_model("b")).await;
    send(&client, to_model("a")).await;
    for model in ["a", "b", "new"] {
        let answer = send(&client, to_model(model)).await;
        let info = info(&answer).unwrap();
        let verdict = info.verdict.unwrap();
        assert_eq!((verdict.kind, verdict.account), (Kind::QuotaExhausted, true), "{model}");
        assert_eq!((info.stopped, info.attempts), (Some(StopReason::Local), 0));
        assert_eq!(answer.extensions().get::<LocalRejection>().unwrap().verdict(), Some(&verdict));
        assert_eq!(words(answer).await.2, "insufficient_quota", "{model}");
    }
    assert_eq!(server.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_within_a_body_is_remembered_like_a_429() {
    let event = "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"insufficient_quota\",\"message\":\"m\"}}}\n\n";
    let server = Server::saying([Reply::status(200, event).header("content-type", "text/event-stream")]);
    let client = client(&layer(), &server);
    read(send(&client, request()).await).await;
    let answer = send(&client, request()).await;
    assert_eq!(info(&answer).unwrap().verdict.unwrap().kind, Kind::QuotaExhausted);
    assert_eq!(words(answer).await, ("quota_exhausted".to_owned(), json!("requests"), json!("insufficient_quota")));
}

#[tokio::test(start_paused = true)]
async fn what_was_remembered_ends_with_the_quota() {
    let cool = || Reply::bare().header("retry-after", "7200");
    let server = Server::saying([Reply::status(429, NO_QUOTA), Reply::ok(), cool()]);
    let client = client(&layer(), &server);
    send(&client, request()).await;
    tokio::time::advance(secs(30)).await;
    for _ in 0..2 {
        send(&client, request()).await;
    }
    let answer = send(&client, request()).await;
    assert_eq!(info(&answer).unwrap().verdict, None);
    assert_eq!(words(answer).await, ("cooldown".to_owned(), json!("requests"), json!("local_cooldown")));
}

#[tokio::test(start_paused = true)]
async fn every_local_answer_names_its_reason_in_a_header() {
    let answer = send(&client(&layer(), &Server::saying([])), with(Deadline::within(ms(0)))).await;
    assert_eq!(words(answer).await, ("deadline".to_owned(), json!("requests"), json!("local_deadline")));
    for reason in [
        RejectReason::QueueFull,
        RejectReason::QueueTimeout,
        RejectReason::Deadline,
        RejectReason::QuotaExhausted,
        RejectReason::Cooldown,
    ] {
        assert_eq!(reason.code(), format!("local_{}", reason.as_str()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_meets_a_used_up_quota_answers_with_the_servers_words_too() {
    // Two calls are let go; one queues in the limit below while the other is told that the quota is used up.
    let server = Server::new(|_, _| Reply::status(429, NO_QUOTA).after(secs(1)));
    let stack = layer().layer(ConcurrencyLimitLayer::new(1).layer(server.clone()));
    let calls = [(); 2].map(|()| tokio::spawn(stack.clone().oneshot(request())));
    let [first, second] = calls;
    assert_eq!(first.await.unwrap().unwrap().extensions().get::<LocalRejection>(), None);
    let answer = second.await.unwrap().unwrap();
    assert_eq!(answer.headers()["x-tower-429-local"], "quota_exhausted");
    let info = answer.extensions().get::<RetryInfo>().unwrap();
    assert_eq!(info.verdict.as_ref().unwrap().kind, Kind::QuotaExhausted);
    let body: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(body["error"]["code"], "insufficient_quota");
    assert_eq!(server.count(), 1);
}

/// Calls through a proxy that has the stack inside and passes on what goes over a wire: status, headers, body.
async fn behind_a_proxy(
    proxy: &Client,
    outer: &tower_429::RetryOn429Layer,
    requests: Vec<Req>,
) -> Vec<Option<RetryInfo>> {
    let proxy = proxy.clone();
    let over_the_wire = service_fn(move |request: Req| {
        let proxy = proxy.clone();
        async move {
            let (mut parts, body) = request.into_parts();
            parts.extensions = http::Extensions::new();
            let answer = try_send(&proxy, Req::from_parts(parts, body)).await?;
            let (mut parts, body) = answer.into_parts();
            parts.extensions = http::Extensions::new();
            Ok::<_, Broken>(Response::from_parts(parts, Full::from(body.collect().await.unwrap().to_bytes())))
        }
    });
    let mut client = outer.layer(over_the_wire);
    let mut infos = Vec::new();
    for request in requests {
        infos.push(client.ready().await.unwrap().call(request).await.unwrap().extensions().get().cloned());
    }
    infos
}

#[tokio::test(start_paused = true)]
async fn a_client_behind_a_proxy_takes_its_local_answer_for_the_keys_exhaustion_and_never_the_accounts() {
    // The proxy has keys of its own to the server, so that an account of one of its clients is none of the server's.
    let server =
        Server::new(|_, seen| if seen.body.ends_with(b"\"a\"}") { Reply::status(429, NO_QUOTA) } else { Reply::ok() });
    let proxy_layer = layer().key(|parts| parts.headers.get("x-tenant").map(tower_429::QuotaKey::new));
    let proxy = client(&proxy_layer, &server);
    let tenant = |model: &str, tenant: &'static str| {
        let mut request = to_model(model);
        request.headers_mut().insert("x-tenant", http::HeaderValue::from_static(tenant));
        request
    };
    send(&proxy, tenant("a", "1")).await;
    assert_eq!(server.count(), 1, "the proxy knows of it");

    let events = std::sync::Arc::new(std::sync::Mutex::new(0));
    let seen = std::sync::Arc::clone(&events);
    let outer = layer()
        .on_event(move |_, event| *seen.lock().unwrap() += usize::from(matches!(event, QuotaEvent::Closed { .. })));
    let calls = vec![tenant("b", "2"), tenant("a", "1"), tenant("a", "1"), tenant("b", "2")];
    let infos = behind_a_proxy(&proxy, &outer, calls).await;
    let told = infos[1].as_ref().unwrap();
    let verdict = told.verdict.as_ref().unwrap();
    assert_eq!((verdict.kind, verdict.account), (Kind::QuotaExhausted, false));
    assert_eq!((told.attempts, told.stopped), (1, Some(StopReason::Permanent)), "it is not sent again");
    assert_eq!(infos[2].as_ref().unwrap().stopped, Some(StopReason::Local), "its key is closed here, too");
    assert_eq!((&infos[0], &infos[3]), (&None, &None), "the other model of the same credential goes");
    assert_eq!(*events.lock().unwrap(), 1);
    assert_eq!(server.count(), 1 + 2);
}

#[tokio::test(start_paused = true)]
async fn the_header_counts_whatever_code_stands_beside_it_and_other_reasons_are_overload() {
    let header = "x-tower-429-local";
    for (reason, code, kind, sent) in [
        ("quota_exhausted", "local_quota_exhausted", Kind::QuotaExhausted, 1),
        ("quota_exhausted", "insufficient_quota", Kind::QuotaExhausted, 1),
        ("quota_exhausted", "anything", Kind::QuotaExhausted, 1),
        ("cooldown", "local_cooldown", Kind::Overloaded, 2),
        ("queue_full", "local_queue_full", Kind::Overloaded, 2),
        ("no reason of ours", "rate_limit_exceeded", Kind::RateLimited, 2),
    ] {
        let body = format!(r#"{{"error":{{"message":"m","type":"requests","code":"{code}"}}}}"#);
        let server = Server::saying([Reply::status(429, body).header(header, reason)]);
        let answer = send(&client(&layer(), &server), request()).await;
        assert_eq!(server.count(), sent, "{reason} {code}");
        let verdict = info(&answer).unwrap().verdict.unwrap();
        assert_eq!((verdict.kind, verdict.account), (kind, false), "{reason} {code}");
    }
}
