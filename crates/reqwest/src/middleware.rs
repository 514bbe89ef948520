//! [`TowerMiddleware`]: a stack of layers as one middleware of `reqwest-middleware`.
//!
//! The stack is built once, but `Next` lives only as long as one request. Therefore the innermost service sends each attempt
//! to the running middleware, through a channel in the request's extensions. The middleware then runs `Next`.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};
use tokio::sync::{mpsc, oneshot};
use tower_429::ResendCount;
use tower_layer::Layer;
use tower_service::Service;

use crate::Body;
use crate::from_reqwest::into_http;
use crate::to_reqwest::into_reqwest;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes a stack of layers a [`Middleware`].
///
/// The stack is built once, and all requests share its state. Middlewares added *after* it run for each attempt, one attempt
/// at a time. Middlewares added *before* it see one call.
///
/// The layers see the extensions of a request (`RequestBuilder::with_extension`), such as
/// [`QuotaKey`](tower_429::QuotaKey), [`Priority`](tower_429::Priority) and [`Deadline`](tower_429::Deadline). The caller
/// sees the extensions that the middlewares below insert. Those middlewares find a [`ResendCount`] on each retry.
///
/// ```
/// use reqwest_middleware::ClientBuilder;
/// use tower::ServiceBuilder;
/// use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};
/// use tower_429_reqwest::{Body, TowerMiddleware};
///
/// let layers = ServiceBuilder::new()
///     .layer(RetryOn429Layer::new().clone_body(Body::try_clone))
///     .layer(ConcurrencyLimitLayer::new(32));
/// let client = ClientBuilder::new(reqwest::Client::new()).with(TowerMiddleware::new(layers)).build();
/// # let _ = client;
/// ```
///
/// # Errors
///
/// An [`Error`] of the middlewares or the client below passes through unchanged, also if a layer has boxed it. Any other
/// error of a layer becomes [`Error::Middleware`]. `downcast_ref::<Box<dyn std::error::Error + Send + Sync>>()` returns it.
///
/// # Cancel safety
///
/// Dropping the call drops the running attempt and its waits. A layer that cancels an attempt, such as a timeout, drops the
/// middlewares and the client below.
#[derive(Debug, Clone)]
pub struct TowerMiddleware<S> {
    stack: S,
}

impl<S> TowerMiddleware<S> {
    /// Builds the stack from one layer, or from a `ServiceBuilder` of several.
    pub fn new(layers: impl Layer<NextService, Service = S>) -> Self {
        Self { stack: layers.layer(NextService) }
    }
}

#[async_trait::async_trait]
impl<S, RB> Middleware for TowerMiddleware<S>
where
    S: Service<http::Request<Body>, Response = http::Response<RB>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    RB: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let url = request.url().clone();
        let mut request = http::Request::<reqwest::Body>::try_from(request)?.map(Body::from);
        let (attempts, mut asked) = mpsc::unbounded_channel();
        request.extensions_mut().extend(extensions.clone());
        request.extensions_mut().insert(Attempts(attempts));
        let mut stack = self.stack.clone();
        let mut call = pin!(async {
            poll_fn(|cx| stack.poll_ready(cx)).await?;
            stack.call(request).await
        });
        let answer = loop {
            let Attempt { request, mut reply } = tokio::select! {
                biased;
                answer = &mut call => break answer,
                Some(attempt) = asked.recv() => attempt,
            };
            if let Some(count) = request.extensions().get::<ResendCount>() {
                extensions.insert(*count);
            }
            let mut run = next.clone().run(Request::try_from(request)?, &mut *extensions);
            tokio::select! {
                biased;
                answer = &mut call => break answer,
                // Sending fails if a layer has cancelled the attempt.
                result = &mut run => drop(reply.send(result)),
                () = reply.closed() => {}
            }
        };
        answer.map(|response| into_reqwest(response, url)).map_err(|error| own_error(error.into()))
    }
}

/// The innermost service of a [`TowerMiddleware`]: it runs the middlewares and the client that follow.
#[derive(Debug, Clone, Copy)]
pub struct NextService;

/// The channel to the running middleware, in the extensions of each request.
#[derive(Clone)]
struct Attempts(mpsc::UnboundedSender<Attempt>);

struct Attempt {
    request: http::Request<Body>,
    reply: oneshot::Sender<Result<Response>>,
}

impl Service<http::Request<Body>> for NextService {
    type Response = http::Response<reqwest::Body>;
    type Error = Error;
    type Future = NextFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> NextFuture {
        let (reply, answer) = oneshot::channel();
        if let Some(Attempts(attempts)) = request.extensions_mut().remove() {
            // If the call has ended, the dropped `reply` reports it.
            drop(attempts.send(Attempt { request, reply }));
        }
        NextFuture(answer)
    }
}

/// The response future of [`NextService`].
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct NextFuture(oneshot::Receiver<Result<Response>>);

impl Future for NextFuture {
    type Output = Result<http::Response<reqwest::Body>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(answer.unwrap_or_else(|_| Err(Error::middleware(Lost))).map(into_http))
    }
}

/// An attempt that does not belong to a running call.
#[derive(Debug)]
struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request lost its extensions in a layer above, or outlived its call")
    }
}

impl std::error::Error for Lost {}

/// Unboxes an error of the client that a layer has boxed.
fn own_error(error: BoxError) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(error) => return *error,
        Err(error) => error,
    };
    match error.downcast::<reqwest::Error>() {
        Ok(error) => Error::Reqwest(*error),
        Err(error) => Error::Middleware(anyhow::Error::from_boxed(error)),
    }
}
