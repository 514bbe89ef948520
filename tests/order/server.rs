//! A server in the process that answers by a script, and a log of what it was sent.

use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use tower::Service;

pub(crate) type Body = Full<Bytes>;

pub(crate) const RATE: &str =
    r#"{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
pub(crate) const QUOTA: &str = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;

/// What arrived: where, with which credential.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(Uri, String)>>>);

impl Log {
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(uri, _)| uri.path().to_owned()).collect()
    }

    pub(crate) fn credentials(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(_, credential)| credential.clone()).collect()
    }
}

/// A server that answers the n-th request, from 0, as the script says, at once.
pub(crate) fn server<F>(
    script: F,
) -> (impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send, Log)
where
    F: Fn(usize, &Request<Body>) -> Response<Body> + Clone + Send,
{
    let log = Log::default();
    let seen = log.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let credential = request.headers().get("authorization").map_or("", |value| value.to_str().unwrap());
        let mut seen = seen.0.lock().unwrap();
        seen.push((request.uri().clone(), credential.to_owned()));
        ready(Ok(script(seen.len() - 1, &request)))
    });
    (service, log)
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://api.test{path}")).body(Body::default()).unwrap()
}

pub(crate) fn ok() -> Response<Body> {
    Response::new("done".into())
}

/// A 429 that asks for so many seconds.
pub(crate) fn throttle(seconds: u32) -> Response<Body> {
    let builder = Response::builder().status(StatusCode::TOO_MANY_REQUESTS).header("retry-after", seconds);
    builder.body(RATE.into()).unwrap()
}

/// Refuses the first request, and answers the others.
pub(crate) fn throttle_first(seconds: u32) -> impl Fn(usize, &Request<Body>) -> Response<Body> + Clone + Send {
    move |n, _| if n == 0 { throttle(seconds) } else { ok() }
}
