//! [`ToReqwest`]: a stack of HTTP layers with reqwest's request and response types.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use pin_project_lite::pin_project;
use reqwest::{ResponseBuilderExt, Url};
use tower_service::Service;

use crate::Body;
use crate::from_reqwest::ResponseUrl;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes a stack of layers a client of [`reqwest::Request`] and [`reqwest::Response`].
///
/// The innermost service of the stack is [`FromReqwest`](crate::FromReqwest).
///
/// See the [crate documentation](crate) for an example.
///
/// # Errors
///
/// Errors of the stack pass through unchanged. A URL that is not valid in HTTP is a [`reqwest::Error`].
#[derive(Debug, Clone)]
pub struct ToReqwest<S> {
    inner: S,
}

impl<S> ToReqwest<S> {
    /// Wraps a stack.
    pub const fn new(stack: S) -> Self {
        Self { inner: stack }
    }

    /// Returns a reference to the stack.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the stack.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Sends a request through the stack, as [`reqwest::Client::execute`] does.
    ///
    /// # Errors
    ///
    /// Errors of the stack pass through. A 429 is not an error: like reqwest, this returns responses of any status.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call.
    pub async fn execute(
        &self,
        request: reqwest::Request,
    ) -> Result<reqwest::Response, <Self as Service<reqwest::Request>>::Error>
    where
        S: Clone,
        Self: Service<reqwest::Request, Response = reqwest::Response>,
    {
        let mut service = self.clone();
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(request).await
    }
}

impl<S, RB> Service<reqwest::Request> for ToReqwest<S>
where
    S: Service<http::Request<Body>, Response = http::Response<RB>>,
    S::Error: From<reqwest::Error>,
    RB: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    type Response = reqwest::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: reqwest::Request) -> Self::Future {
        let url = request.url().clone();
        let state = match http::Request::<reqwest::Body>::try_from(request) {
            Ok(request) => State::Sent { future: self.inner.call(request.map(Body::from)), url: Some(url) },
            Err(error) => State::Unsendable { error: Some(error.into()) },
        };
        ResponseFuture { state }
    }
}

/// Converts the response of a stack around [`FromReqwest`](crate::FromReqwest) into a [`reqwest::Response`].
///
/// The response keeps its URL. A local rejection gets `url`, the URL of its request. [`ToReqwest`] calls this function.
pub fn into_reqwest<RB>(response: http::Response<RB>, url: Url) -> reqwest::Response
where
    RB: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    let (mut parts, body) = response.into_parts();
    let url = parts.extensions.remove::<ResponseUrl>().map_or(url, |url| url.0);
    // Only the extension of reqwest's response builder can set the URL of a response.
    if let Some(extensions) = http::Response::builder().url(url).extensions_mut() {
        parts.extensions.extend(std::mem::take(extensions));
    }
    http::Response::from_parts(parts, reqwest::Body::wrap(body)).into()
}

pin_project! {
    /// The response future of [`ToReqwest`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, E> {
        #[pin]
        state: State<F, E>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, E> {
        Sent { #[pin] future: F, url: Option<Url> },
        Unsendable { error: Option<E> },
    }
}

impl<F, RB, E> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<http::Response<RB>, E>>,
    RB: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    type Output = Result<reqwest::Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Sent { future, url } => {
                let response = ready!(future.poll(cx))?;
                let Some(url) = url.take() else { panic!("polled after completion") };
                Poll::Ready(Ok(into_reqwest(response, url)))
            }
            StateProj::Unsendable { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => panic!("polled after completion"),
            },
        }
    }
}

impl<F, E> std::fmt::Debug for ResponseFuture<F, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
