//! A scripted server, its bodies, and small helpers: whatever a test wants to be said is said at the moment it wants.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response, request};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, Sleep};
use tower::{Layer, Service, ServiceExt};
use tower_429::{QuotaKey, ResendCount, ResponseBody, RetryInfo, RetryOn429, RetryOn429Layer};

pub(crate) type Req = Request<Full<Bytes>>;
pub(crate) type Client = RetryOn429<Server>;
pub(crate) type Answer = Response<ResponseBody<Steps>>;

/// The body of the 429 that this crate was written for.
pub(crate) const BARE: &str =
    r#"{"error":{"message":"Rate limit reached for fine-tuned model","type":"requests","code":"rate_limit_exceeded"}}"#;
pub(crate) const NO_QUOTA: &str = r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
pub(crate) const AT_ONCE: &str =
    r#"{"error":{"message":"Too many concurrent requests","type":"requests","code":"concurrency_limit_exceeded"}}"#;

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The inner service's own error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) &'static str);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

/// What a scripted body does next.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Fail(&'static str),
    Pause(Duration),
    Stall,
    /// Empty frames without end, each at once.
    Endless,
}

/// A scripted response body.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
    pub(crate) polls: usize,
    alive: Option<Alive>,
}

impl Steps {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), ..Self::default() }
    }

    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self::new((!text.is_empty()).then_some(Step::Data(text)))
    }
}

impl Body for Steps {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.polls += 1;
        loop {
            if let Some(sleep) = &mut self.sleep {
                std::task::ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            let Some(step) = self.steps.pop_front() else { return Poll::Ready(None) };
            return Poll::Ready(Some(match step {
                Step::Data(data) => Ok(Frame::data(data)),
                Step::Trailers(trailers) => Ok(Frame::trailers(trailers)),
                Step::Fail(why) => {
                    self.steps.clear(); // a body polled again after its error looks whole
                    Err(Broken(why))
                }
                Step::Pause(time) => {
                    self.sleep = Some(Box::pin(tokio::time::sleep(time)));
                    continue;
                }
                Step::Stall => {
                    self.steps.push_front(Step::Stall);
                    return Poll::Pending;
                }
                Step::Endless => {
                    self.steps.push_front(Step::Endless);
                    Ok(Frame::data(Bytes::new()))
                }
            }));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Counts how many of a thing are alive.
#[derive(Debug)]
pub(crate) struct Alive(Arc<AtomicUsize>);

impl Alive {
    pub(crate) fn of(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the server says to one call, and after how long.
pub(crate) struct Reply {
    after: Duration,
    result: Result<Response<Steps>, Broken>,
}

impl Reply {
    pub(crate) fn ok() -> Self {
        Self::status(200, "{}")
    }

    pub(crate) fn status(status: u16, body: impl Into<Bytes>) -> Self {
        Self::body(status, Steps::text(body))
    }

    pub(crate) fn body(status: u16, body: Steps) -> Self {
        let response = Response::builder().status(status).body(body).unwrap();
        Self { after: Duration::ZERO, result: Ok(response) }
    }

    pub(crate) fn bare() -> Self {
        Self::status(429, BARE)
    }

    pub(crate) fn broken(why: &'static str) -> Self {
        Self { after: Duration::ZERO, result: Err(Broken(why)) }
    }

    pub(crate) fn after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(response) = &mut self.result {
            response.headers_mut().append(name, value.parse().unwrap());
        }
        self
    }

    /// Counts the body among those that are alive.
    pub(crate) fn counted(mut self, alive: &Arc<AtomicUsize>) -> Self {
        if let Ok(response) = &mut self.result {
            response.body_mut().alive = Some(Alive::of(alive));
        }
        self
    }
}

/// One call as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Since the server was made.
    pub(crate) at: Duration,
    /// Without extensions: they hold the controller.
    pub(crate) parts: request::Parts,
    pub(crate) resend: Option<ResendCount>,
    pub(crate) body: Bytes,
}

type Script = Box<dyn FnMut(usize, &Seen) -> Reply + Send>;

/// A service that answers as a function of the call and its number says.
#[derive(Clone)]
pub(crate) struct Server {
    shared: Arc<Mutex<(Script, Vec<Seen>)>>,
    born: Instant,
    pub(crate) open: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn new(script: impl FnMut(usize, &Seen) -> Reply + Send + 'static) -> Self {
        let shared = Arc::new(Mutex::new((Box::new(script) as Script, Vec::new())));
        Self { shared, born: Instant::now(), open: Arc::default() }
    }

    /// Answers with these, then with 200.
    pub(crate) fn saying(replies: impl IntoIterator<Item = Reply>) -> Self {
        let mut replies: VecDeque<Reply> = replies.into_iter().collect();
        Self::new(move |_, _| replies.pop_front().unwrap_or_else(Reply::ok))
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.lock().unwrap().1.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.shared.lock().unwrap().1.len()
    }

    /// When each call came.
    pub(crate) fn times(&self) -> Vec<Duration> {
        self.seen().iter().map(|seen| seen.at).collect()
    }
}

impl Service<Req> for Server {
    type Response = Response<Steps>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Steps>, Broken>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let resend = std::mem::take(&mut parts.extensions).remove();
        let body = body.collect().now_or_never().expect("at hand").unwrap().to_bytes();
        let seen = Seen { at: self.born.elapsed(), parts, resend, body };
        let mut shared = self.shared.lock().unwrap();
        let n = shared.1.len();
        let reply = (shared.0)(n, &seen);
        shared.1.push(seen);
        let alive = Alive::of(&self.open);
        Box::pin(async move {
            let _alive = alive;
            if reply.after > Duration::ZERO {
                tokio::time::sleep(reply.after).await;
            }
            reply.result
        })
    }
}

pub(crate) fn key() -> QuotaKey {
    QuotaKey::new("the key of these tests")
}

/// A call with a key of its own, so that its snapshot can be found.
pub(crate) fn request() -> Req {
    let mut request = unkeyed(r#"{"model":"m","input":"hello"}"#);
    request.extensions_mut().insert(key());
    request
}

pub(crate) fn unkeyed(body: &'static str) -> Req {
    Request::post("https://api.openai.com/v1/responses")
        .header("authorization", "Bearer sk-test")
        .body(Full::from(body))
        .unwrap()
}

pub(crate) fn with<T: Clone + Send + Sync + 'static>(value: T) -> Req {
    let mut request = request();
    request.extensions_mut().insert(value);
    request
}

pub(crate) fn layer() -> RetryOn429Layer {
    RetryOn429Layer::new().seed(1)
}

pub(crate) fn client(layer: &RetryOn429Layer, server: &Server) -> Client {
    layer.layer(server.clone())
}

/// One call to its head, which must come within a day.
pub(crate) async fn send(client: &Client, request: Req) -> Answer {
    try_send(client, request).await.expect("the service does not fail")
}

pub(crate) async fn try_send(client: &Client, request: Req) -> Result<Answer, Broken> {
    let call = client.clone().oneshot(request);
    tokio::time::timeout(secs(90_000), call).await.expect("answered within a day")
}

/// So many calls at once, each read to its end; what became of them in the order of submission.
pub(crate) async fn send_all(client: &Client, requests: impl IntoIterator<Item = Req>) -> Vec<Outcome> {
    let calls: Vec<_> = requests
        .into_iter()
        .map(|request| {
            let client = client.clone();
            tokio::spawn(async move {
                let began = Instant::now();
                let answer = send(&client, request).await;
                let head = began.elapsed();
                let outcome = Outcome {
                    status: answer.status().as_u16(),
                    head,
                    info: info(&answer),
                    throttle: throttle(&answer),
                };
                let _ = answer.into_body().collect().await;
                outcome
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap());
    }
    outcomes
}

#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// How long its head took.
    pub(crate) head: Duration,
    pub(crate) info: Option<RetryInfo>,
    pub(crate) throttle: Option<tower_429::RejectReason>,
}

pub(crate) fn info<B>(answer: &Response<B>) -> Option<RetryInfo> {
    answer.extensions().get::<RetryInfo>().cloned()
}

pub(crate) fn throttle<B>(answer: &Response<B>) -> Option<tower_429::RejectReason> {
    answer.extensions().get::<tower_429::LocalRejection>().map(|throttle| throttle.reason)
}

pub(crate) async fn read(answer: Answer) -> Bytes {
    answer.into_body().collect().await.unwrap().to_bytes()
}

/// Asserts that a wait took what a hint says, or its spread more; a timer counts whole milliseconds.
#[track_caller]
pub(crate) fn assert_hinted(took: Duration, hint: Duration, what: &str) {
    let most = hint + (hint / 4).clamp(ms(50), secs(5)) + ms(1);
    assert!(took >= hint && took <= most, "{what}: {took:?} is not within {hint:?} and {most:?}");
}
