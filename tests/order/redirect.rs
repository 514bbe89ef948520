//! Redirects below `RetryOn429` are part of an attempt; above, each hop is a call of its own.

use std::sync::{Arc, Mutex};

use http::{Request, Response};
use tower::{ServiceBuilder, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, Priority, RetryOn429Layer};
use tower_http::follow_redirect::FollowRedirectLayer;

use crate::server::{Body, get, ok, server, throttle};

/// `/old` leads to `/new` on another host, which throttles once.
fn moved(n: usize, request: &Request<Body>) -> Response<Body> {
    match request.uri().path() {
        "/old" => {
            Response::builder().status(302).header("location", "http://other.test/new").body(Body::default()).unwrap()
        }
        _ if n < 2 => throttle(1),
        _ => ok(),
    }
}

#[tokio::test(start_paused = true)]
async fn below_a_retry_goes_through_the_redirect_again_under_one_key() {
    let (server, log) = server(moved);
    let retry = RetryOn429Layer::new();
    let quotas = retry.quotas();
    let stack = ServiceBuilder::new().layer(retry).layer(FollowRedirectLayer::new()).service(server);
    assert_eq!(stack.oneshot(get("/old")).await.unwrap().status(), 200);
    assert_eq!(log.paths(), ["/old", "/new", "/old", "/new"]);
    assert_eq!(quotas.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn above_each_hop_is_paced_and_counted_as_a_call() {
    let (server, log) = server(moved);
    let retry = RetryOn429Layer::new();
    let quotas = retry.quotas();
    let stack = ServiceBuilder::new().layer(FollowRedirectLayer::new()).layer(retry).service(server);
    assert_eq!(stack.oneshot(get("/old")).await.unwrap().status(), 200);
    assert_eq!(log.paths(), ["/old", "/new", "/new"]);
    assert_eq!(quotas.len(), 2, "one call has taken from two keys");
}

#[tokio::test(start_paused = true)]
async fn a_hop_gives_its_permit_back_before_the_next_one_takes_it() {
    let (server, _) = server(moved);
    let limit = ConcurrencyLimitLayer::new(1);
    let handle = limit.handle();
    let layers = ServiceBuilder::new().layer(RetryOn429Layer::new()).layer(FollowRedirectLayer::new()).layer(limit);
    let response = layers.service(server).oneshot(get("/old")).await.unwrap();
    assert_eq!((response.status().as_u16(), handle.in_use()), (200, 1));
    drop(response);
    assert_eq!(handle.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hop_to_another_origin_loses_the_requests_extensions() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let stack = ServiceBuilder::new().layer(FollowRedirectLayer::new()).map_request(move |request: Request<Body>| {
        note.lock().unwrap().push(request.extensions().get::<Priority>().is_some());
        request
    });
    let mut request = get("/old");
    request.extensions_mut().insert(Priority::Batch);
    stack.service(server(moved).0).oneshot(request).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [true, false]);
}
