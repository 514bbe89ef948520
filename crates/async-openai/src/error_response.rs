//! [`ErrorResponse`]: a response that is not a success, with its headers.

use async_openai::error::{ApiErrorResponse, OpenAIError, WrappedError};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tower_429::RetryInfo;

/// A response that is not a success, with its status, headers and body.
///
/// It is inside `OpenAIError::Boxed` if [`keep_error_responses`](crate::HttpService::keep_error_responses) is on.
///
/// ```
/// use async_openai::error::OpenAIError;
/// use tower_429_async_openai::ErrorResponse;
///
/// fn when_to_try_again(error: &OpenAIError) -> Option<&str> {
///     ErrorResponse::of(error)?.headers.get("retry-after")?.to_str().ok()
/// }
/// # assert_eq!(when_to_try_again(&OpenAIError::InvalidArgument("x".to_owned())), None);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ErrorResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as received.
    pub body: Bytes,
    /// The attempts and waits of the call. `None` if the layers neither retried, throttled nor rejected it.
    pub info: Option<RetryInfo>,
}

impl ErrorResponse {
    /// Returns the response inside an error, if the error has one.
    pub fn of(error: &OpenAIError) -> Option<&Self> {
        match error {
            OpenAIError::Boxed(error) => error.downcast_ref(),
            _ => None,
        }
    }

    /// Returns the error that async-openai makes of this response, if the body has the form of an OpenAI error.
    pub fn api_error(&self) -> Option<ApiErrorResponse> {
        let WrappedError { error } = serde_json::from_slice(&self.body).ok()?;
        Some(ApiErrorResponse { status_code: self.status, api_error: error })
    }

    pub(crate) async fn read(response: reqwest::Response) -> Result<Self, OpenAIError> {
        let (status, headers) = (response.status(), response.headers().clone());
        let info = response.extensions().get().cloned();
        Ok(Self { status, headers, info, body: response.bytes().await? })
    }
}

impl std::fmt::Display for ErrorResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.api_error() {
            Some(error) => error.fmt(f),
            None => write!(f, "{}", self.status),
        }
    }
}

impl std::error::Error for ErrorResponse {}
