//! The request that is sent over and over, the server that answers at once, and the stacks between them.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use tower::limit::{ConcurrencyLimit as TowerLimit, ConcurrencyLimitLayer as TowerLimitLayer};
use tower::retry::{Policy, Retry, RetryLayer};
use tower::{Layer, Service, ServiceBuilder};
use tower_429::{ConcurrencyLimit, ConcurrencyLimitLayer, RetryOn429, RetryOn429Layer};

use super::body::Frames;

/// What the requests carry besides their body of 1 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headers {
    /// Ten values that own their bytes, as a client that is configured at run time sends them.
    TenOwned,
    /// Ten values that are constants.
    TenStatic,
    /// Three values that own their bytes.
    ThreeOwned,
}

impl Headers {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 3] = [Self::TenOwned, Self::TenStatic, Self::ThreeOwned];

    /// What the table calls them.
    pub fn name(self) -> &'static str {
        match self {
            Self::TenOwned => "10 owned headers",
            Self::TenStatic => "10 static headers",
            Self::ThreeOwned => "3 owned headers",
        }
    }
}

const NAMES: [(&str, &str); 10] = [
    ("authorization", "Bearer sk-proj-0123456789abcdef0123456789abcdef"),
    ("content-type", "application/json"),
    ("accept", "application/json"),
    ("user-agent", "OpenAI/Rust 1.0.0"),
    ("openai-organization", "org-0123456789abcdef"),
    ("x-request-id", "0b9f6c9e-1d1c-4c7e-9b1e-1d1c4c7e9b1e"),
    ("accept-encoding", "gzip, br"),
    ("x-stainless-lang", "rust"),
    ("x-stainless-retry-count", "0"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
];

/// A chat completion of 1 KiB, its model first.
pub fn body() -> Bytes {
    let mut body = String::from(r#"{"model":"gpt-4o-mini","max_tokens":256,"messages":[{"role":"user","content":""#);
    let end = r#""}]}"#;
    while body.len() + end.len() < 1024 {
        body.push_str(if body.len() % 6 == 0 { " " } else { "w" });
    }
    body.push_str(end);
    body.into()
}

/// A request with this body.
pub fn request(headers: Headers, body: &Bytes) -> Request<Full<Bytes>> {
    let mut map = HeaderMap::with_capacity(16);
    let count = if headers == Headers::ThreeOwned { 3 } else { 10 };
    for (name, value) in NAMES.into_iter().take(count) {
        let value = match headers {
            Headers::TenStatic => HeaderValue::from_static(value),
            _ => HeaderValue::from_str(value).expect("a constant"),
        };
        map.insert(HeaderName::from_static(name), value);
    }
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("https://api.openai.com/v1/chat/completions");
    *request.headers_mut() = map;
    request
}

/// OpenAI's six rate headers, of limits so large that nothing waits for them.
pub fn rate_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-ratelimit-limit-requests", "100000000"),
        ("x-ratelimit-limit-tokens", "3000000000"),
        ("x-ratelimit-remaining-requests", "99999999"),
        ("x-ratelimit-remaining-tokens", "2999999744"),
        ("x-ratelimit-reset-requests", "6ms"),
        ("x-ratelimit-reset-tokens", "1ms"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

/// The server: answers at once.
#[derive(Debug, Clone)]
pub struct Server {
    headers: Arc<HeaderMap>,
    frames: usize,
}

impl Server {
    /// An answer of so many frames, without any rate header.
    pub fn new(frames: usize) -> Self {
        Self { headers: Arc::default(), frames }
    }

    /// With [`rate_headers`] on each answer.
    pub fn with_rate_headers(self) -> Self {
        Self { headers: Arc::new(rate_headers()), ..self }
    }
}

impl Service<Request<Full<Bytes>>> for Server {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        drop(request);
        let mut response = Response::new(Frames::new(self.frames));
        if !self.headers.is_empty() {
            *response.headers_mut() = (*self.headers).clone();
        }
        ready(Ok(response))
    }
}

/// The policy that is usually written by hand: copy each request, retry a 429 at once.
#[derive(Debug, Clone, Copy)]
pub struct CloneRequests;

impl<RB, E> Policy<Request<Full<Bytes>>, Response<RB>, E> for CloneRequests {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request<Full<Bytes>>, result: &mut Result<Response<RB>, E>) -> Option<Self::Future> {
        let throttled = result.as_ref().is_ok_and(|answer| answer.status() == http::StatusCode::TOO_MANY_REQUESTS);
        throttled.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

/// tower's own pair.
pub fn tower_pair<S>(server: S) -> Retry<CloneRequests, TowerLimit<S>> {
    ServiceBuilder::new().layer(RetryLayer::new(CloneRequests)).layer(TowerLimitLayer::new(64)).service(server)
}

/// Our retry alone.
pub fn retry<S>(layer: &RetryOn429Layer, server: S) -> RetryOn429<S> {
    layer.layer(server)
}

/// Our limit alone.
pub fn limit<S>(server: S) -> ConcurrencyLimit<S> {
    ConcurrencyLimitLayer::new(64).layer(server)
}

/// Both of ours.
pub fn both<S>(layer: &RetryOn429Layer, server: S) -> RetryOn429<ConcurrencyLimit<S>> {
    layer.layer(limit(server))
}
