//! A credential above is the same on each attempt; below it is fresh, and the key has to be told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderValue, Request, header::AUTHORIZATION};
use tower::{ServiceBuilder, ServiceExt};
use tower_429::{QuotaKey, RetryOn429Layer};
use tower_http::set_header::SetRequestHeaderLayer;

use crate::server::{Body, get, ok, server, throttle_first};

/// Sets a token that is another one each time.
fn fresh_token() -> SetRequestHeaderLayer<impl Fn(&Request<Body>) -> Option<HeaderValue> + Clone> {
    let issued = Arc::new(AtomicUsize::new(0));
    SetRequestHeaderLayer::overriding(AUTHORIZATION, move |_: &Request<Body>| {
        let n = issued.fetch_add(1, Ordering::Relaxed) + 1;
        HeaderValue::try_from(format!("token {n}")).ok()
    })
}

/// Sets the credential of the tenant that the path names.
fn tenants_own(request: &Request<Body>) -> Option<HeaderValue> {
    HeaderValue::try_from(request.uri().path()).ok()
}

#[tokio::test(start_paused = true)]
async fn above_each_attempt_has_the_same_credential() {
    let (server, log) = server(throttle_first(60));
    let stack = ServiceBuilder::new().layer(fresh_token()).layer(RetryOn429Layer::new()).service(server);
    assert_eq!(stack.oneshot(get("/")).await.unwrap().status(), 200);
    assert_eq!(log.credentials(), ["token 1", "token 1"], "it may have expired in that minute");
}

#[tokio::test(start_paused = true)]
async fn below_each_attempt_has_a_fresh_one() {
    let (server, log) = server(throttle_first(60));
    let stack = ServiceBuilder::new().layer(RetryOn429Layer::new()).layer(fresh_token()).service(server);
    assert_eq!(stack.oneshot(get("/")).await.unwrap().status(), 200);
    assert_eq!(log.credentials(), ["token 1", "token 2"]);
}

/// How many keys two tenants have.
async fn keys(below: bool, told: bool) -> usize {
    let (server, _) = server(|_, _| ok());
    let retry = RetryOn429Layer::new();
    let quotas = retry.quotas();
    let auth = SetRequestHeaderLayer::overriding(AUTHORIZATION, tenants_own as fn(&Request<Body>) -> _);
    for tenant in ["/a", "/b"] {
        let mut request = get(tenant);
        if told {
            request.extensions_mut().insert(QuotaKey::new(tenant));
        }
        if below {
            let stack = ServiceBuilder::new().layer(retry.clone()).layer(auth.clone()).service(server.clone());
            stack.oneshot(request).await.unwrap();
        } else {
            let stack = ServiceBuilder::new().layer(auth.clone()).layer(retry.clone()).service(server.clone());
            stack.oneshot(request).await.unwrap();
        }
    }
    quotas.len()
}

#[tokio::test(start_paused = true)]
async fn below_two_tenants_share_a_key_unless_they_are_told_apart_above() {
    assert_eq!(keys(false, false).await, 2);
    assert_eq!(keys(true, false).await, 1, "one tenant's cooldown would stop the other");
    assert_eq!(keys(true, true).await, 2);
}
