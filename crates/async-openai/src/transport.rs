//! [`Transport`]: the innermost service, which sends requests with reqwest.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_openai::error::OpenAIError;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use tower_429_reqwest::{Body, FromReqwest};
use tower_service::Service;

use crate::Replay;

/// The innermost service of an [`HttpService`](crate::HttpService): a [`reqwest::Client`].
#[derive(Debug, Clone)]
pub struct Transport {
    client: FromReqwest<reqwest::Client>,
}

impl Transport {
    pub(crate) const fn new(client: reqwest::Client) -> Self {
        Self { client: FromReqwest::new(client) }
    }
}

impl Service<http::Request<Replay>> for Transport {
    type Response = http::Response<reqwest::Body>;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.client, cx).map_err(OpenAIError::Reqwest)
    }

    fn call(&mut self, request: http::Request<Replay>) -> Self::Future {
        let mut client = self.client.clone();
        Box::pin(async move {
            let request = rebuild(request).await?;
            client.call(request).await.map_err(OpenAIError::Reqwest)
        })
    }
}

/// Returns the request with its body, and builds the body again if it is missing.
///
/// The head keeps the changes of the layers. `content-type` and `content-length` come from the new body, because the boundary
/// of a multipart form differs each time.
async fn rebuild(request: http::Request<Replay>) -> Result<http::Request<Body>, OpenAIError> {
    let (mut parts, replay) = request.into_parts();
    let body = match replay.built {
        Some(body) => body,
        None => {
            let fresh = http::Request::<reqwest::Body>::try_from(replay.factory.build().await?)?;
            let (mut fresh, body) = fresh.into_parts();
            for name in [CONTENT_TYPE, CONTENT_LENGTH] {
                match fresh.headers.remove(&name) {
                    Some(value) => parts.headers.insert(name, value),
                    None => parts.headers.remove(name),
                };
            }
            Body::from(body)
        }
    };
    Ok(http::Request::from_parts(parts, body))
}
