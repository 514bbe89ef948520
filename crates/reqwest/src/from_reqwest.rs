//! A reqwest client as a service of HTTP requests.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use reqwest::Url;
use tower_service::Service;

/// A [`reqwest::Client`], or anything that serves [`reqwest::Request`]s as it does, as a service of [`http::Request`]s.
///
/// The body is [`Body`](crate::Body), which can be copied for another attempt, or anything else that becomes a
/// [`reqwest::Body`].
///
/// A `reqwest_middleware::ClientWithMiddleware` fits, too: its middlewares run for each attempt, while extensions given to
/// its request builder are not seen by the layers around it.
///
/// # Errors
///
/// Those of the inner service, and a [`reqwest::Error`] for a URL that reqwest cannot send to.
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

    /// The client.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The client.
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

/// The URL that a response came from. reqwest's own extension for it cannot be read from outside.
#[derive(Debug, Clone)]
pub(crate) struct ResponseUrl(pub(crate) Url);

/// The same response, its URL in its extensions.
pub(crate) fn into_http(response: reqwest::Response) -> http::Response<reqwest::Body> {
    let url = ResponseUrl(response.url().clone());
    let mut response = http::Response::<reqwest::Body>::from(response);
    response.extensions_mut().insert(url);
    response
}

pin_project! {
    /// The future of [`FromReqwest`].
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
