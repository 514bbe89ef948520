//! A stack as the HTTP connector of the AWS SDKs: the bridge is a dozen lines.

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};

use crate::server::{ANSWER, REQUEST, refusing_twice};

#[derive(Clone)]
struct Connector<S>(S);

impl<S, RB> HttpConnector for Connector<S>
where
    S: Service<http::Request<SdkBody>, Response = http::Response<RB>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    RB: http_body::Body<Data = Bytes, Error: Into<BoxError> + 'static> + Send + Sync + 'static,
{
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let stack = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let response = stack.oneshot(request).await.map_err(|error| ConnectorError::io(error.into()))?;
            let response = HttpResponse::try_from(response.map(SdkBody::from_body_1_x));
            response.map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

impl<S> std::fmt::Debug for Connector<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

#[tokio::test]
async fn an_aws_connector_is_retried() {
    let server = refusing_twice().await;
    let connector = SharedHttpConnector::new(Connector(
        ServiceBuilder::new()
            .layer(RetryOn429Layer::new().clone_body(SdkBody::try_clone))
            .layer(ConcurrencyLimitLayer::new(4))
            .service(Client::builder(TokioExecutor::new()).build_http::<SdkBody>()),
    ));
    let request = http::Request::post(&server.url).body(SdkBody::from(REQUEST)).unwrap();
    let response = connector.call(HttpRequest::try_from(request).unwrap()).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), ANSWER);
    server.assert_sent_three_times();
}
