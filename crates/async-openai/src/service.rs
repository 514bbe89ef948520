//! A stack of layers as the service that async-openai sends its requests with.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use bytes::Bytes;
use tower_429_reqwest::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::error_response::ErrorResponse;
use crate::{Replay, Transport};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A stack of layers for `async_openai::Client::with_http_service`. See the [crate documentation](crate) for examples.
///
/// The stack is built once; its state is shared by all clones of the client.
///
/// # Errors
///
/// Those of async-openai and of reqwest, as without the layers. What the server throttles in the end is a response, which
/// async-openai turns into its `OpenAIError::ApiError`; see [`keep_error_responses`](Self::keep_error_responses).
///
/// # Cancel safety
///
/// Dropping a call, or the stream that it gave, frees its permit and its place in the queue.
#[derive(Debug, Clone)]
pub struct HttpService<S> {
    stack: S,
    keep_error_responses: bool,
}

impl<S> HttpService<S> {
    /// The layers, one or a `ServiceBuilder` of several, around a new [`reqwest::Client`].
    pub fn new(layers: impl Layer<Transport, Service = S>) -> Self {
        Self::with_client(reqwest::Client::new(), layers)
    }

    /// The layers around a [`reqwest::Client`] of your own.
    pub fn with_client(client: reqwest::Client, layers: impl Layer<Transport, Service = S>) -> Self {
        Self { stack: layers.layer(Transport::new(client)), keep_error_responses: false }
    }

    /// Whether an answer that is no success becomes a [`ErrorResponse`] in `OpenAIError::Boxed`, which has the status, the
    /// headers and the body, instead of an `OpenAIError::ApiError`, which has none of the headers. Default: false.
    #[must_use]
    pub fn keep_error_responses(mut self, on: bool) -> Self {
        self.keep_error_responses = on;
        self
    }
}

impl<S, RB> Service<HttpRequestFactory> for HttpService<S>
where
    S: Service<http::Request<Replay>, Response = http::Response<RB>> + Clone + Send + 'static,
    S::Error: Into<OpenAIError> + Send,
    S::Future: Send,
    RB: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    type Response = reqwest::Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<reqwest::Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        self.stack.poll_ready(cx).map_err(own_error)
    }

    fn call(&mut self, factory: HttpRequestFactory) -> Self::Future {
        // The readied instance is the one called.
        let fresh = self.stack.clone();
        let mut stack = std::mem::replace(&mut self.stack, fresh);
        let keep_error_responses = self.keep_error_responses;
        Box::pin(async move {
            // Built here once, for the layers to read; what the first attempt sends is this very request.
            let request = factory.build().await?;
            let url = request.url().clone();
            let request = http::Request::<reqwest::Body>::try_from(request)?;
            let request = request.map(|body| Replay::new(factory, Body::from(body)));
            let response = stack.call(request).await.map_err(own_error)?;
            let response = tower_429_reqwest::into_reqwest(response, url);
            if keep_error_responses && !response.status().is_success() {
                return Err(OpenAIError::Boxed(Box::new(ErrorResponse::read(response).await?)));
            }
            Ok(response)
        })
    }
}

/// async-openai's own error, also out of the box that a layer above has put it into.
fn own_error(error: impl Into<OpenAIError>) -> OpenAIError {
    match error.into() {
        OpenAIError::Boxed(error) => match error.downcast::<OpenAIError>() {
            Ok(error) => *error,
            Err(error) => OpenAIError::Boxed(error),
        },
        error => error,
    }
}
