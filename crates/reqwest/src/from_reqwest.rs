//! [`FromReqwest`]: a reqwest client as a service of HTTP requests.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use reqwest::Url;
use tower_service::Service;

/// Makes a [`reqwest::Client`] a service of [`http::Request`]s.
///
/// The inner service can be any service of [`reqwest::Request`] with the response [`reqwest::Response`]. The request body can
/// be any type that converts into a [`reqwest::Body`]. Use [`Body`](crate::Body) for retries, because it can be copied.
///
/// The inner service can be a `reqwest_middleware::ClientWithMiddleware`. Its middlewares then run for each attempt. The
/// layers around it do not see the extensions of its request builder.
///
/// # Errors
///
/// Errors of the inner service pass through. A URL that reqwest cannot use is a [`reqwest::Error`].
///
/// ```
/// use http::Request;
/// use tower::ServiceExt;
/// use tower_429_reqwest::FromReqwest;
///
/// # async fn run() -> Result<(), reqwest::Error> {
/// let client = FromReqwest::new(reqwest::Client::new());
/// let request = Request::post("https://api.openai.com/v1/embeddings").body(reqwest::Body::from("{}")).unwrap();
/// let response: http::Response<reqwest::Body> = client.oneshot(request).await?;
/// # let _ = response;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct FromReqwest<S = reqwest::Client> {
    inner: S,
}

impl<S> FromReqwest<S> {
    /// Wraps a client.
    pub const fn new(client: S) -> Self {
        Self { inner: client }
    }

    /// Returns a reference to the client.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the client.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B> Service<http::Request<B>> for FromReqwest<S>
where
    S: Service<reqwest::Request, Response = reqwest::Response>,
    S::Error: From<reqwest::Error>,
    B: Into<reqwest::Body>,
{
    type Response = http::Response<reqwest::Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let state = match reqwest::Request::try_from(request) {
            Ok(request) => State::Sent { future: self.inner.call(request) },
            Err(error) => State::Unsendable { error: Some(error.into()) },
        };
        ResponseFuture { state }
    }
}

/// The URL of a response. reqwest's own extension for the URL is private.
#[derive(Debug, Clone)]
pub(crate) struct ResponseUrl(pub(crate) Url);

/// Converts a response and puts its URL into its extensions.
pub(crate) fn into_http(response: reqwest::Response) -> http::Response<reqwest::Body> {
    let url = ResponseUrl(response.url().clone());
    let mut response = http::Response::<reqwest::Body>::from(response);
    response.extensions_mut().insert(url);
    response
}

pin_project! {
    /// The response future of [`FromReqwest`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, E> {
        #[pin]
        state: State<F, E>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, E> {
        Sent { #[pin] future: F },
        Unsendable { error: Option<E> },
    }
}

impl<F, E> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<reqwest::Response, E>>,
{
    type Output = Result<http::Response<reqwest::Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Sent { future } => Poll::Ready(ready!(future.poll(cx)).map(into_http)),
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
