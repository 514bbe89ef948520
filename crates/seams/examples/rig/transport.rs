//! A stack of layers as rig's HTTP client.

use std::future::Future;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::BodyExt;
use rig_core::http_client::{
    Error, HttpClientExt, LazyBody, MultipartForm, Request, Response, Result, StreamingResponse,
};
use tower::{BoxError, Service, ServiceExt};
use tower_429_reqwest::Body;

#[derive(Clone)]
pub(crate) struct RigTransport<S>(pub(crate) S);

impl<S, RB> RigTransport<S>
where
    S: Service<Request<Body>, Response = Response<RB>, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    RB: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    /// rig expects a response that is not a success as an error, which keeps the headers.
    async fn answer(self, request: Request<Body>) -> Result<Response<RB>> {
        let (parts, body) = self.0.oneshot(request).await.map_err(|error| Error::Instance(error.into()))?.into_parts();
        if parts.status.is_success() {
            return Ok(Response::from_parts(parts, body));
        }
        let text = String::from_utf8_lossy(&bytes_of(body).await?).into_owned();
        Err(Error::non_success_with_details(parts.status, parts.headers, text))
    }

    async fn lazy<U: From<Bytes> + Send + 'static>(self, request: Request<Body>) -> Result<Response<LazyBody<U>>> {
        let response = self.answer(request).await?;
        Ok(response.map(|body| -> LazyBody<U> { Box::pin(async { bytes_of(body).await.map(U::from) }) }))
    }
}

async fn bytes_of<RB: http_body::Body<Data = Bytes, Error: Into<BoxError>>>(body: RB) -> Result<Bytes> {
    Ok(body.collect().await.map_err(Into::into)?.to_bytes())
}

impl<S, RB> HttpClientExt for RigTransport<S>
where
    S: Service<Request<Body>, Response = Response<RB>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    RB: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn send<T: Into<Bytes> + Send, U: From<Bytes> + Send + 'static>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>>> + Send + 'static {
        self.clone().lazy(request.map(|body| Body::from(body.into())))
    }

    fn send_multipart<U: From<Bytes> + Send + 'static>(
        &self,
        request: Request<MultipartForm>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>>> + Send + 'static {
        let (mut parts, form) = request.into_parts();
        let (boundary, body) = form.encode();
        let content_type = format!("multipart/form-data; boundary={boundary}").parse();
        parts.headers.extend(content_type.ok().map(|value| (http::header::CONTENT_TYPE, value)));
        self.clone().lazy(Request::from_parts(parts, Body::from(body)))
    }

    fn send_streaming<T: Into<Bytes> + Send>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = Result<StreamingResponse>> + Send {
        let answer = self.clone().answer(request.map(|body| Body::from(body.into())));
        async {
            Ok(answer
                .await?
                .map(|body| Box::pin(body.into_data_stream().map_err(|error| Error::from(error.into()))) as _))
        }
    }
}
