//! [`HttpService`]: a stack of layers as async-openai's HTTP service.

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
/// The stack is built once, and all clones of the client share its state.
///
/// # Errors
///
/// Errors of async-openai and reqwest are the same as without the layers. A 429 that is not retried is a response.
/// async-openai turns it into `OpenAIError::ApiError`; see [`keep_error_responses`](Self::keep_error_responses).
///
/// # Cancel safety
///
/// Dropping a call or its stream releases its permit and its queue position.
#[derive(Debug, Clone)]
pub struct HttpService<S> {
    stack: S,
    keep_error_responses: bool,
}

impl<S> HttpService<S> {
    /// Puts one layer, or a `ServiceBuilder` of several, around a new [`reqwest::Client`].
    pub fn new(layers: impl Layer<Transport, Service = S>) -> Self {
        Self::with_client(reqwest::Client::new(), layers)
    }

    /// Puts the layers around your own [`reqwest::Client`].
    pub fn with_client(client: reqwest::Client, layers: impl Layer<Transport, Service = S>) -> Self {
        Self { stack: layers.layer(Transport::new(client)), keep_error_responses: false }
    }

    /// Sets whether a response that is not a success becomes an [`ErrorResponse`] inside `OpenAIError::Boxed`.
    ///
    /// An `ErrorResponse` has the status, the headers and the body. `OpenAIError::ApiError`, which it replaces, has no
    /// headers. Default: false.
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
        // The instance that was polled ready is the one that is called.
        let fresh = self.stack.clone();
        let mut stack = std::mem::replace(&mut self.stack, fresh);
        let keep_error_responses = self.keep_error_responses;
        Box::pin(async move {
            // The layers read this request, and the first attempt sends it.
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

/// Converts to async-openai's error, and unboxes one that a layer has boxed.
fn own_error(error: impl Into<OpenAIError>) -> OpenAIError {
    match error.into() {
        OpenAIError::Boxed(error) => match error.downcast::<OpenAIError>() {
            Ok(error) => *error,
            Err(error) => OpenAIError::Boxed(error),
        },
        error => error,
    }
}
