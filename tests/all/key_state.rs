//! What callers see of a key's state, and how they forget it.

use tokio::time::Instant;
use tower_429::quota::{ClosedReason, KeyState};
use tower_429::{Deadline, QuotaKey, RejectReason};

use crate::support_retry::*;

fn to_key(name: &'static str) -> Req {
    let mut request = request();
    request.extensions_mut().insert(QuotaKey::new(name));
    request
}

fn state(layer: &tower_429::RetryOn429Layer, name: &'static str) -> KeyState {
    layer.quotas().snapshot(QuotaKey::new(name)).unwrap().state
}

#[tokio::test(start_paused = true)]
async fn a_key_is_open_or_cools_down_or_is_closed_for_a_reason() {
    let (layer, max_wait) = (layer().max_retries(0), secs(120));
    for (name, reply, expected) in [
        ("open", Reply::ok(), KeyState::Open),
        ("too long", Reply::bare().header("retry-after", "600"), closed(ClosedReason::DelayTooLong, max_wait)),
        ("quota", Reply::status(429, NO_MODEL_QUOTA), closed(ClosedReason::Quota, secs(30))),
        ("account", Reply::status(429, NO_QUOTA), closed(ClosedReason::Account, secs(30))),
    ] {
        send(&client(&layer, &Server::saying([reply])), to_key(name)).await;
        assert_eq!(state(&layer, name), expected, "{name}");
    }
    let server = Server::saying([Reply::status(429, BARE).header("retry-after", "10")]);
    send(&client(&layer, &server), to_key("cooling")).await;
    let KeyState::CoolingDown { ends_in } = state(&layer, "cooling") else { panic!("{:?}", state(&layer, "cooling")) };
    assert_hinted(ends_in, secs(10), "the delay that the server asked for");
    tokio::time::advance(ends_in).await;
    assert_eq!(state(&layer, "cooling"), KeyState::Open);
}

/// A quota of one model.
const NO_MODEL_QUOTA: &str =
    r#"{"code":"AllocationQuota.FreeTierOnly","message":"The free tier of the model has been exhausted."}"#;

fn closed(reason: ClosedReason, next_probe_in: std::time::Duration) -> KeyState {
    KeyState::Closed { reason, next_probe_in }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_forgotten_is_called_at_once_although_it_was_closed() {
    let layer = layer().max_retries(0);
    let server = Server::new(|n, _| if n == 0 { Reply::status(429, NO_MODEL_QUOTA) } else { Reply::ok() });
    let client = client(&layer, &server);
    send(&client, to_key("a")).await;
    assert_eq!(throttle(&send(&client, to_key("a")).await), Some(RejectReason::QuotaExhausted));
    assert!(layer.quotas().forget(QuotaKey::new("a")));
    assert!(!layer.quotas().forget(QuotaKey::new("a")), "it is not known any more");
    assert_eq!(send(&client, to_key("a")).await.status(), 200);
    assert_eq!(server.times(), [secs(0), secs(0)]);
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_for_a_cooldown_go_when_their_key_is_forgotten() {
    let server = Server::new(|n, _| if n == 0 { Reply::bare().header("retry-after", "60") } else { Reply::ok() });
    let layer = layer();
    let client = client(&layer, &server);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { send(&client, to_key("a")).await.status() }
    });
    tokio::time::sleep(secs(5)).await;
    assert!(layer.quotas().forget(QuotaKey::new("a")));
    assert_eq!(waiting.await.unwrap(), 200);
    assert_eq!(server.times(), [secs(0), secs(5)]);
}

#[tokio::test(start_paused = true)]
async fn all_keys_of_an_account_are_open_when_it_is_forgotten() {
    let layer = layer().max_retries(0);
    let server = Server::new(|n, _| if n == 2 { Reply::status(429, NO_QUOTA) } else { Reply::ok() });
    let client = client(&layer, &server);
    let to_model = |model: &str| {
        let mut request = unkeyed("");
        *request.body_mut() = format!(r#"{{"model":"{model}"}}"#).into();
        request
    };
    for model in ["a", "b", "b"] {
        send(&client, to_model(model)).await;
    }
    assert_eq!(throttle(&send(&client, to_model("a")).await), Some(RejectReason::QuotaExhausted));
    let (parts, _) = to_model("a").into_parts();
    assert_eq!(layer.quotas().forget_account(QuotaKey::of(&parts, "a")), 2);
    for model in ["a", "b", "one never called before"] {
        assert_eq!(send(&client, to_model(model)).await.status(), 200, "{model}");
    }
    assert_eq!(layer.quotas().forget_account(QuotaKey::new("unknown")), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_says_how_much_time_is_left() {
    let deadline = Deadline::within(secs(10));
    tokio::time::advance(secs(4)).await;
    assert_eq!(deadline.remaining(), secs(6));
    tokio::time::advance(secs(7)).await;
    assert_eq!(deadline.remaining(), secs(0));
    assert_eq!(Deadline::at(Instant::now().into_std() + secs(3)).remaining(), secs(3));
}
