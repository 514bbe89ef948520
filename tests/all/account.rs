//! A quota that is used up is the account's: all keys of the credential are closed with the one that was told.

use std::sync::{Arc, Mutex};

use tower_429::classify::{Kind, Scope, Verdict};
use tower_429::{PacingConfig, QuotaEvent, QuotaKey, RejectReason};

use crate::support_retry::*;

fn to_model(model: &str) -> Req {
    let mut request = unkeyed("");
    *request.body_mut() = format!(r#"{{"model":"{model}"}}"#).into();
    request
}

fn model(seen: &Seen) -> String {
    String::from_utf8_lossy(&seen.body).split('"').nth(3).unwrap().to_owned()
}

/// Refuses all calls to this credential from the fourth on, until it is told that so many were enough.
fn until(enough: usize) -> Server {
    let mut throttled = 0;
    Server::new(move |n, seen| {
        if n < 3 || throttled == enough || seen.parts.headers["authorization"] != "Bearer sk-test" {
            return Reply::ok();
        }
        throttled += 1;
        Reply::status(429, NO_QUOTA)
    })
}

async fn warm(client: &Client) {
    for model in ["a", "b", "c"] {
        assert_eq!(send(client, to_model(model)).await.status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn no_model_of_an_account_without_quota_is_called_and_other_accounts_are() {
    let server = until(usize::MAX);
    let client = client(&layer(), &server);
    warm(&client).await;
    assert_eq!(throttle(&send(&client, to_model("a")).await), None, "the server's own");
    for model in ["a", "b", "c", "one never called before"] {
        let answer = send(&client, to_model(model)).await;
        assert_eq!(throttle(&answer), Some(RejectReason::QuotaExhausted), "{model}");
    }
    let mut other = to_model("a");
    other.headers_mut().insert("authorization", "Bearer sk-other".parse().unwrap());
    assert_eq!(send(&client, other).await.status(), 200);
    assert_eq!(server.count(), 3 + 1 + 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_another_model_of_the_account_is_answered_at_once() {
    let server = Server::new(|_, seen| match model(seen).as_str() {
        "b" => Reply::ok().after(secs(60)),
        _ => Reply::status(429, NO_QUOTA).after(ms(100)),
    });
    let client = client(&layer().pacing(PacingConfig::new().initial_window(1)), &server);
    let outcomes = send_all(&client, ["b", "b", "a"].map(to_model)).await;
    assert_eq!((outcomes[1].throttle, outcomes[1].head), (Some(RejectReason::QuotaExhausted), ms(100)));
    assert_eq!(outcomes[0].status, 200, "what is under way goes on");
}

#[tokio::test(start_paused = true)]
async fn one_model_probes_for_the_whole_account_and_its_success_opens_all() {
    let server = until(3);
    let client = client(&layer(), &server);
    warm(&client).await;
    let began = tokio::time::Instant::now();
    while began.elapsed() < secs(300) {
        for model in ["b", "a", "c"] {
            send(&client, to_model(model)).await;
        }
        tokio::time::advance(secs(1)).await;
    }
    let seen: Vec<_> = server.seen().iter().skip(3).map(|seen| (model(seen), seen.at.as_secs())).collect();
    let first = [("b", 0), ("b", 30), ("b", 90), ("b", 210), ("a", 210), ("c", 210), ("b", 211)];
    assert_eq!(seen[..7], first.map(|(model, at)| (model.to_owned(), at)));
    assert_eq!(server.count(), 3 + 3 + 3 * 90);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_calls_the_model_that_was_throttled_another_probes_a_little_later() {
    let server = until(1);
    let client = client(&layer(), &server);
    warm(&client).await;
    send(&client, to_model("a")).await;
    let mut opened = None;
    for second in 0..=60 {
        let answer = send(&client, to_model("b")).await;
        opened = opened.or((answer.status() == 200).then_some(second));
        tokio::time::advance(secs(1)).await;
    }
    assert!(opened.is_some_and(|second| (45..=60).contains(&second)), "half as much time again, or twice: {opened:?}");
    assert_eq!(send(&client, to_model("a")).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_calls_the_model_that_was_throttled_the_others_do_not_all_probe_at_one_moment() {
    let server = Server::new(|n, _| if n < 50 { Reply::ok() } else { Reply::status(429, NO_QUOTA).after(ms(100)) });
    let client = client(&layer(), &server);
    let models: Vec<String> = (0..50).map(|n| format!("model {n}")).collect();
    for model in &models {
        send(&client, to_model(model)).await;
    }
    send(&client, to_model(&models[0])).await;
    for _ in 0..600 {
        send_all(&client, models[1..].iter().map(|model| to_model(model))).await;
        tokio::time::advance(ms(100)).await;
    }
    let probes = server.count() - 51;
    assert!((1..=3).contains(&probes), "{probes} in the first minute");
}

#[tokio::test(start_paused = true)]
async fn a_model_first_called_when_any_other_of_its_account_may_be_probed_may_probe_too() {
    let server = Server::new(|n, _| if n < 50 { Reply::ok() } else { Reply::status(429, NO_QUOTA) });
    let client = client(&layer(), &server);
    let models: Vec<String> = (0..50).map(|n| format!("model {n}")).collect();
    for model in &models {
        send(&client, to_model(model)).await;
    }
    send(&client, to_model(&models[7])).await;
    tokio::time::advance(secs(31)).await;
    assert_eq!(throttle(&send(&client, to_model("new")).await), None, "the server's own");
    assert_eq!(throttle(&send(&client, to_model("newer")).await), Some(RejectReason::QuotaExhausted));
}

#[tokio::test(start_paused = true)]
async fn what_one_model_may_spend_says_nothing_of_the_others() {
    let free = r#"{"error":{"code":"AllocationQuota.FreeTierOnly","message":"The free tier of the model has been exhausted. If you wish to continue access the model on a paid basis, please disable the \"use free tier only\" mode in the management console."}}"#;
    let set = r#"{"error":{"code":"SetLimitExceeded","message":"Your account has reached the set inference limit for this model, and the model service has been paused."}}"#;
    let unknown = r#"{"error":{"message":"You exceeded your current quota"}}"#;
    for (status, body) in [(403, free), (429, set), (429, unknown)] {
        let server =
            Server::new(move |_, seen| if model(seen) == "a" { Reply::status(status, body) } else { Reply::ok() });
        let client = client(&layer(), &server);
        send(&client, to_model("b")).await;
        send(&client, to_model("a")).await;
        assert_eq!(throttle(&send(&client, to_model("a")).await), Some(RejectReason::QuotaExhausted), "{body}");
        assert_eq!(send(&client, to_model("b")).await.status(), 200, "{body}");
        assert_eq!(send(&client, to_model("c")).await.status(), 200, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_classifier_of_ones_own_may_say_that_it_is_the_account() {
    for (verdict, closed) in [
        (Verdict::new(Kind::QuotaExhausted), false),
        (Verdict::new(Kind::QuotaExhausted).with_account(), true),
        (Verdict::new(Kind::QuotaExhausted).with_account().with_scope(Scope::DailyTokens), true),
        (Verdict::new(Kind::RateLimited).with_account(), false),
    ] {
        let server = Server::new(|_, seen| if model(seen) == "a" { Reply::status(429, "") } else { Reply::ok() });
        let said = verdict.clone();
        let client = client(&layer().max_retries(0).classify(move |_, _| Some(said.clone())), &server);
        send(&client, to_model("a")).await;
        assert_eq!(throttle(&send(&client, to_model("b")).await).is_some(), closed, "{verdict:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_ends_within_an_answer_closes_the_account_or_its_own_key_as_the_error_says() {
    let account = r#"{"error":{"message":"You exceeded your current quota.","code":"insufficient_quota"}}"#;
    let own = r#"{"error":{"message":"The free tier of the model has been exhausted.","code":"AllocationQuota.FreeTierOnly"}}"#;
    for (error, closed) in [(account, true), (own, false)] {
        let server = Server::new(move |_, seen| match model(seen).as_str() {
            "a" => Reply::status(200, error).header("content-type", "application/json"),
            _ => Reply::ok(),
        });
        let client = client(&layer(), &server);
        let answers = send_all(&client, ["b", "a"].map(to_model)).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(throttle(&send(&client, to_model("a")).await), Some(RejectReason::QuotaExhausted), "{error}");
        for model in ["b", "new", "newer"] {
            let expected = closed.then_some(RejectReason::QuotaExhausted);
            assert_eq!(throttle(&send(&client, to_model(model)).await), expected, "{model} {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_first_called_when_a_probe_is_due_probes_as_rarely_as_the_others() {
    let server = until(usize::MAX);
    let client = client(&layer(), &server);
    warm(&client).await;
    send(&client, to_model("a")).await;
    tokio::time::advance(secs(50)).await;
    for second in 0..100 {
        let answer = send(&client, to_model("new")).await;
        let probes = second == 0 || second == 60;
        assert_eq!(throttle(&answer).is_none(), probes, "{second}");
        tokio::time::advance(secs(1)).await;
    }
    assert_eq!(server.count(), 3 + 1 + 2);
}

#[tokio::test(start_paused = true)]
async fn a_success_sent_before_the_quota_ended_opens_nothing() {
    let server = Server::new(|_, seen| match model(seen).as_str() {
        "slow" => Reply::ok().after(secs(5)),
        _ => Reply::status(429, NO_QUOTA).after(secs(1)),
    });
    let client = client(&layer(), &server);
    send_all(&client, ["slow", "a"].map(to_model)).await;
    for model in ["slow", "a"] {
        assert_eq!(throttle(&send(&client, to_model(model)).await), Some(RejectReason::QuotaExhausted), "{model}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_a_models_own_and_a_key_of_ones_own_are_closed_alone() {
    let server = until(usize::MAX);
    let of_a_day =
        |_: &http::response::Parts, _: &[u8]| Some(Verdict::new(Kind::QuotaExhausted).with_scope(Scope::DailyRequests));
    let daily = client(&layer().classify(of_a_day), &server);
    warm(&daily).await;
    assert_eq!(throttle(&send(&daily, to_model("a")).await), None);
    assert_eq!(throttle(&send(&daily, to_model("a")).await), Some(RejectReason::QuotaExhausted));
    assert_eq!(throttle(&send(&daily, to_model("b")).await), None, "asked for itself");

    let client = client(&layer(), &server);
    assert_eq!(throttle(&send(&client, request()).await), None);
    assert_eq!(throttle(&send(&client, request()).await), Some(RejectReason::QuotaExhausted));
    assert_eq!(throttle(&send(&client, to_model("a")).await), None, "no relation of the other is known");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_closed_for_a_reason_of_its_own_is_not_opened_with_its_account() {
    let mut throttled = 0;
    let server = Server::new(move |_, seen| {
        if model(seen) == "b" {
            return Reply::bare().header("retry-after", "7200");
        }
        throttled += 1;
        if throttled == 1 { Reply::status(429, NO_QUOTA) } else { Reply::ok() }
    });
    let client = client(&layer(), &server);
    assert_eq!(throttle(&send(&client, to_model("b")).await), None);
    send(&client, to_model("a")).await;
    tokio::time::advance(secs(30)).await;
    assert_eq!(send(&client, to_model("a")).await.status(), 200, "the account is open again");
    assert_eq!(
        throttle(&send(&client, to_model("b")).await),
        Some(RejectReason::Cooldown),
        "two hours, the server said"
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_probe_met_a_plain_429_is_opened_with_its_account_all_the_same() {
    let server = Server::new(|n, _| match n {
        0 | 1 => Reply::ok(),
        2 => Reply::status(429, NO_QUOTA),
        3 => Reply::bare().header("retry-after", "1"),
        _ => Reply::ok(),
    });
    let client = client(&layer().max_retries(0), &server);
    for model in ["a", "b", "a"] {
        send(&client, to_model(model)).await;
    }
    tokio::time::advance(secs(60)).await;
    assert_eq!(send(&client, to_model("b")).await.status(), 429, "the probe");
    assert_eq!(send(&client, to_model("a")).await.status(), 200);
    tokio::time::advance(secs(2)).await;
    assert_eq!(send(&client, to_model("b")).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn each_key_that_closes_and_opens_with_its_account_is_told_of() {
    let events: Arc<Mutex<Vec<(QuotaKey, QuotaEvent)>>> = Arc::default();
    let seen = Arc::clone(&events);
    let server = until(1);
    let client = client(&layer().on_event(move |key, event| seen.lock().unwrap().push((key, *event))), &server);
    warm(&client).await;
    send(&client, to_model("a")).await;
    tokio::time::advance(secs(30)).await;
    assert_eq!(send(&client, to_model("a")).await.status(), 200);
    let events = events.lock().unwrap();
    let keys = |of: fn(&QuotaEvent) -> bool| {
        let mut keys: Vec<_> =
            events.iter().filter(|(_, event)| of(event)).map(|(key, _)| format!("{key:?}")).collect();
        keys.sort();
        keys.dedup();
        keys.len()
    };
    assert_eq!(keys(|event| matches!(event, QuotaEvent::Closed { quota: true, .. })), 3);
    assert_eq!(keys(|event| matches!(event, QuotaEvent::Opened)), 3);
    assert_eq!(events.len(), 6);
}
