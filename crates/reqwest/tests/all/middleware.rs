//! The layers inside reqwest-middleware, and reqwest-middleware inside the layers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Extensions;
use reqwest::{Client, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next, Result};
use tower::ServiceBuilder;
use tower_429::{ConcurrencyLimitLayer, Priority, ResendCount, RetryInfo, RetryOn, RetryOn429Layer};
use tower_429_reqwest::{Body, FromReqwest, ToReqwest, TowerMiddleware};

use crate::server::refusing;

/// A run's resend count, and how often it ran before in the same call.
type Run = (Option<u32>, u32);

/// Notes its runs.
#[derive(Clone, Default)]
struct Inner(Arc<Mutex<Vec<Run>>>);

#[derive(Clone)]
struct Runs(u32);

#[async_trait::async_trait]
impl Middleware for Inner {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let before = extensions.get::<Runs>().map_or(0, |runs| runs.0);
        extensions.insert(Runs(before + 1));
        self.0.lock().unwrap().push((extensions.get::<ResendCount>().map(|count| count.0), before));
        next.run(request, extensions).await
    }
}

/// Notes what has come back into the extensions.
#[derive(Clone, Default)]
struct Outer(Arc<Mutex<Vec<Option<u32>>>>);

#[async_trait::async_trait]
impl Middleware for Outer {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let answer = next.run(request, extensions).await;
        self.0.lock().unwrap().push(extensions.get::<Runs>().map(|runs| runs.0));
        answer
    }
}

fn retry() -> RetryOn429Layer<tower_429::CloneWith<Body>> {
    RetryOn429Layer::new().clone_body(Body::try_clone)
}

#[tokio::test]
async fn middlewares_below_run_for_each_attempt_and_their_extensions_flow_back() {
    let server = refusing(2).await;
    let (outer, inner) = (Outer::default(), Inner::default());
    let layers = ServiceBuilder::new().layer(retry()).layer(ConcurrencyLimitLayer::new(4));
    let client: ClientWithMiddleware = ClientBuilder::new(Client::new())
        .with(outer.clone())
        .with(TowerMiddleware::new(layers))
        .with(inner.clone())
        .build();
    let response = client.post(&server.url).body("x").send().await.unwrap();
    assert_eq!(response.extensions().get::<RetryInfo>().unwrap().attempts, 3);
    assert_eq!(response.url().as_str(), format!("{}/", server.url));
    assert_eq!(response.text().await.unwrap(), "done");
    assert_eq!(server.hits().len(), 3);
    assert_eq!(*inner.0.lock().unwrap(), [(None, 0), (Some(1), 1), (Some(2), 2)]);
    assert_eq!(*outer.0.lock().unwrap(), [Some(3)], "the middleware above sees one call");
}

#[tokio::test]
async fn the_stack_is_built_once_and_its_permits_are_shared_to_the_end_of_bodies() {
    let server = refusing(0).await;
    let limit = ConcurrencyLimitLayer::new(1).max_queue(0);
    let client = ClientBuilder::new(Client::new()).with(TowerMiddleware::new(limit)).build();
    let first = client.get(&server.url).send().await.unwrap();
    let second = client.get(&server.url).send().await.unwrap();
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 429), "the first body holds the only permit");
    assert_eq!(first.text().await.unwrap(), "done");
    assert_eq!(client.get(&server.url).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn extensions_of_the_request_reach_the_layers() {
    let server = refusing(0).await;
    let seen = Arc::new(Mutex::new(None));
    let note = Arc::clone(&seen);
    let layers = ServiceBuilder::new().layer(retry()).map_request(move |request: http::Request<Body>| {
        *note.lock().unwrap() = request.extensions().get::<Priority>().copied();
        request
    });
    let client = ClientBuilder::new(Client::new()).with(TowerMiddleware::new(layers)).build();
    client.get(&server.url).with_extension(Priority::Batch).send().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), Some(Priority::Batch));
}

#[tokio::test]
async fn the_clients_own_error_comes_out_of_a_layers_box() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let layers = ServiceBuilder::new().timeout(Duration::from_secs(60)).layer(retry());
    let client = ClientBuilder::new(Client::new()).with(TowerMiddleware::new(layers)).build();
    let error = client.get(&url).send().await.unwrap_err();
    assert!(matches!(&error, Error::Reqwest(error) if error.is_connect()), "{error:?}");
}

#[tokio::test]
async fn a_timeout_above_ends_the_call_and_frees_its_permit() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let limit = ConcurrencyLimitLayer::new(1);
    let handle = limit.handle();
    let layers = ServiceBuilder::new().timeout(Duration::from_millis(30)).layer(retry()).layer(limit);
    let client = ClientBuilder::new(Client::new()).with(TowerMiddleware::new(layers)).build();
    let error = client.get(&url).send().await.unwrap_err();
    let Error::Middleware(error) = error else { panic!("{error:?}") };
    assert!(error.downcast_ref::<tower::BoxError>().unwrap().is::<tower::timeout::error::Elapsed>());
    assert_eq!(handle.in_use(), 0);
    drop(listener);
}

/// Hangs on its first run, and knows whether that run was dropped.
#[derive(Clone, Default)]
struct HangsOnce {
    runs: Arc<Mutex<u32>>,
    dropped: Arc<()>,
}

#[async_trait::async_trait]
impl Middleware for HangsOnce {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let _held = Arc::clone(&self.dropped);
        let first = {
            let mut runs = self.runs.lock().unwrap();
            *runs += 1;
            *runs == 1
        };
        if first {
            std::future::pending::<()>().await;
        }
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn a_timeout_below_ends_one_attempt_and_drops_what_runs() {
    let server = refusing(0).await;
    let below = HangsOnce::default();
    let layers = ServiceBuilder::new()
        .layer(retry().retry_on(RetryOn::openai_sdk()).backoff(Duration::from_millis(1), Duration::from_millis(2)))
        .timeout(Duration::from_millis(300));
    let client = ClientBuilder::new(Client::new()).with(TowerMiddleware::new(layers)).with(below.clone()).build();
    let response = client.get(&server.url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!((*below.runs.lock().unwrap(), server.hits().len()), (2, 1));
    drop(client);
    assert_eq!(Arc::strong_count(&below.dropped), 1, "the attempt that hung is gone");
}

#[tokio::test]
async fn a_client_with_middleware_can_be_the_inner_service() {
    let server = refusing(2).await;
    let inner = Inner::default();
    let client = ClientBuilder::new(Client::new()).with(inner.clone()).build();
    let stack =
        ServiceBuilder::new().layer(retry()).layer(ConcurrencyLimitLayer::new(4)).service(FromReqwest::new(client));
    let request = Client::new().post(&server.url).body("x").build().unwrap();
    let response: Result<Response> = ToReqwest::new(stack).execute(request).await;
    assert_eq!(response.unwrap().text().await.unwrap(), "done");
    assert_eq!(inner.0.lock().unwrap().len(), 3, "its middlewares run for each attempt");
}
