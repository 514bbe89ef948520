//! The peers that are crates, each as it is, over the provider in place of a socket.

use std::convert::Infallible;
use std::rc::Rc;

use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use async_openai::middleware::retry::OpenAIRetryLayer;
use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body_util::{BodyExt, Full};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_429_testing::ProviderBody;
use tower_resilience::retry::RetryLayer;

use super::Setting;
use super::by_hand::is_throttled;
use crate::run::{Client, client};
use crate::wire::Wire;

/// A request as reqwest has it.
fn to_reqwest(request: Request<Full<Bytes>>) -> reqwest::Request {
    let (parts, body) = request.into_parts();
    let url = parts.uri.to_string().parse().expect("a constant");
    let mut built = reqwest::Request::new(parts.method, url);
    *built.headers_mut() = parts.headers;
    let body = body.collect();
    if let Some(Ok(body)) = at_once(body) {
        *built.body_mut() = Some(body.to_bytes().into());
    }
    built
}

/// What a future that is ready at once has.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut cx) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

/// Sends reqwest's request on the wire.
async fn send(mut wire: Wire, request: reqwest::Request) -> reqwest::Response {
    let mut sent = Request::new(Full::default());
    *sent.method_mut() = request.method().clone();
    *sent.uri_mut() = request.url().as_str().parse().expect("a constant");
    *sent.headers_mut() = request.headers().clone();
    let body = request.body().and_then(reqwest::Body::as_bytes).map(Bytes::copy_from_slice);
    *sent.body_mut() = Full::new(body.unwrap_or_default());
    let Ok(response) = wire.call(sent).await;
    response.map(reqwest::Body::wrap).into()
}

async fn is_done(response: reqwest::Response) -> bool {
    response.status().is_success() && response.bytes().await.is_ok()
}

/// `async_openai`'s own layer, the one in its default client.
pub(super) fn async_openai(wire: Wire, setting: Setting) -> Client {
    let inner = service_fn(move |factory: HttpRequestFactory| {
        let wire = wire.clone();
        let answer: std::pin::Pin<Box<dyn Future<Output = Result<reqwest::Response, OpenAIError>> + Send>> =
            Box::pin(async move { Ok(send(wire, factory.build().await?).await) });
        answer
    });
    let service = OpenAIRetryLayer::new(setting.retries as usize).layer(inner);
    Rc::new(move |request| {
        let factory = HttpRequestFactory::new(move || std::future::ready(Ok(to_reqwest(request.clone()))));
        let call = service.clone().oneshot(factory);
        Box::pin(async move {
            match call.await {
                Ok(response) => is_done(response).await,
                Err(_) => false,
            }
        })
    })
}

/// The last middleware: the wire instead of reqwest's client.
struct InProcess(Wire);

#[async_trait::async_trait]
impl Middleware for InProcess {
    async fn handle(
        &self,
        request: reqwest::Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        Ok(send(self.0.clone(), request).await)
    }
}

/// `reqwest-retry` with its exponential backoff and its default strategy. It reads the system's clock, but only to take
/// a difference: what it sleeps is virtual.
pub(super) fn reqwest_retry(wire: Wire, setting: Setting) -> Client {
    let policy = ExponentialBackoff::builder().build_with_max_retries(setting.retries);
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(RetryTransientMiddleware::new_with_policy(policy))
        .with(InProcess(wire))
        .build();
    Rc::new(move |request| {
        let client = client.clone();
        Box::pin(async move {
            match client.execute(to_reqwest(request)).await {
                Ok(response) => is_done(response).await,
                Err(_) => false,
            }
        })
    })
}

/// `tower-resilience`'s retry with its exponential backoff; it sees no hint.
pub(super) fn tower_resilience(wire: Wire, setting: Setting) -> Client {
    let layer = RetryLayer::<Request<Full<Bytes>>, Response<ProviderBody>, Infallible>::exponential_backoff()
        .max_attempts(setting.retries as usize + 1)
        .retry_on_response(|response: &Response<ProviderBody>| is_throttled(response.status()))
        .build();
    client(layer.layer(wire))
}
