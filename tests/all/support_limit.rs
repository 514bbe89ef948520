//! What the tests of the limit, the wait queue and their neighbours share: services that the test answers, and scripted bodies.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::Service;

pub(crate) type Req = Request<Full<Bytes>>;

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn request() -> Req {
    Request::post("https://api.openai.com/v1/chat/completions").body(Full::from(r#"{"model":"m"}"#)).unwrap()
}

/// A request that carries something in its extensions.
pub(crate) fn request_with<T: Clone + Send + Sync + 'static>(extension: T) -> Req {
    let mut request = request();
    request.extensions_mut().insert(extension);
    request
}

/// Runs a test that could hang without virtual time passing, and fails it after some real time.
pub(crate) fn watched(test: impl FnOnce() + Send + 'static) {
    let (done, over) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match over.recv_timeout(Duration::from_secs(60)) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("hangs"),
        _ => thread.join().unwrap(),
    }
}

/// What a scripted body does when it is polled.
#[derive(Debug)]
pub(crate) enum Step {
    Data(&'static str),
    Trailers,
    Pending,
    Error,
}

/// A body that follows a script. It knows its end only if it is `exact`, and panics when it is asked for it on `Pending`.
#[derive(Debug, Default)]
pub(crate) struct Scripted {
    steps: VecDeque<Step>,
    exact: bool,
    pending: bool,
    pub(crate) alive: Option<Arc<()>>,
    /// Panics when it is polled after its last step.
    pub(crate) no_last_poll: bool,
}

impl Scripted {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), ..Self::default() }
    }

    pub(crate) fn exact(mut self) -> Self {
        self.exact = true;
        self
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = Boom;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Boom>>> {
        self.pending = false;
        Poll::Ready(match self.steps.pop_front() {
            Some(Step::Data(data)) => Some(Ok(Frame::data(Bytes::from_static(data.as_bytes())))),
            Some(Step::Trailers) => Some(Ok(Frame::trailers(HeaderMap::new()))),
            Some(Step::Error) => Some(Err(Boom)),
            Some(Step::Pending) => {
                self.pending = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => {
                assert!(!self.no_last_poll, "polled for the final None");
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        assert!(!self.pending, "asked for its end while pending");
        self.exact && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// An error of the inner service or of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boom;

impl std::fmt::Display for Boom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("boom")
    }
}

impl std::error::Error for Boom {}

/// A service whose calls the test answers by hand, in order of arrival.
#[derive(Debug, Clone, Default)]
pub(crate) struct Desk {
    calls: Arc<Mutex<VecDeque<DeskCall>>>,
}

#[derive(Debug)]
pub(crate) struct DeskCall {
    pub(crate) request: Req,
    answer: oneshot::Sender<Result<Response<Scripted>, Boom>>,
}

impl DeskCall {
    pub(crate) fn answer(self, body: Scripted) {
        let _ = self.answer.send(Ok(Response::new(body)));
    }

    pub(crate) fn empty(self) {
        self.answer(Scripted::default().exact());
    }

    /// Refuses as OpenAI does, with a hint.
    pub(crate) fn throttle(self, hint: Duration) {
        let body = r#"{"error":{"message":"Rate limit reached for gpt-4o on requests per min (RPM): Limit 500, Used 500, Requested 1.","type":"requests","code":"rate_limit_exceeded"}}"#;
        let response = Response::builder().status(429).header("retry-after-ms", hint.as_millis().to_string());
        let _ = self.answer.send(Ok(response.body(Scripted::new([Step::Data(body)]).exact()).unwrap()));
    }

    pub(crate) fn fail(self) {
        let _ = self.answer.send(Err(Boom));
    }
}

impl Desk {
    /// How many calls have come and not been taken.
    pub(crate) fn len(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    #[track_caller]
    pub(crate) fn take(&self) -> DeskCall {
        self.calls.lock().unwrap().pop_front().expect("no call has come")
    }
}

impl Service<Req> for Desk {
    type Response = Response<Scripted>;
    type Error = Boom;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Scripted>, Boom>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Boom>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (answer, answered) = oneshot::channel();
        self.calls.lock().unwrap().push_back(DeskCall { request, answer });
        Box::pin(async move { answered.await.unwrap_or(Err(Boom)) })
    }
}

/// What a [`Door`] says when asked for readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Says {
    #[default]
    Ready,
    Pending,
    Broken,
}

/// A service whose clones are unready, that is ready when the test says so, and that counts readied instances alive.
#[derive(Debug)]
pub(crate) struct Door<S> {
    inner: S,
    readied: bool,
    says: Arc<Mutex<(Says, Vec<Waker>)>>,
    alive: Arc<AtomicUsize>,
}

impl<S> Door<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, readied: false, says: Arc::default(), alive: Arc::default() }
    }

    pub(crate) fn says(&self, says: Says) {
        let mut state = self.says.lock().unwrap();
        state.0 = says;
        std::mem::take(&mut state.1).into_iter().for_each(Waker::wake);
    }

    /// Readied instances that exist now.
    pub(crate) fn readied(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }
}

impl<S: Clone> Clone for Door<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), readied: false, says: self.says.clone(), alive: self.alive.clone() }
    }
}

impl<S> Drop for Door<S> {
    fn drop(&mut self) {
        if self.readied {
            self.alive.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl<S: Service<Req, Error = Boom>> Service<Req> for Door<S> {
    type Response = S::Response;
    type Error = Boom;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Boom>> {
        let mut state = self.says.lock().unwrap();
        match state.0 {
            _ if self.readied => Poll::Ready(Ok(())),
            Says::Ready => {
                self.readied = true;
                self.alive.fetch_add(1, Ordering::SeqCst);
                Poll::Ready(Ok(()))
            }
            Says::Pending => {
                state.1.push(cx.waker().clone());
                Poll::Pending
            }
            Says::Broken => Poll::Ready(Err(Boom)),
        }
    }

    fn call(&mut self, request: Req) -> S::Future {
        assert!(std::mem::take(&mut self.readied), "an instance was called that had not been readied");
        self.alive.fetch_sub(1, Ordering::SeqCst);
        self.inner.call(request)
    }
}

/// How many calls run, and how many ran at most.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
    served: Mutex<Vec<String>>,
}

impl Gauge {
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// The `x-name` headers of the calls, in order of arrival.
    pub(crate) fn served(&self) -> Vec<String> {
        self.served.lock().unwrap().clone()
    }
}

struct Inside(Arc<Gauge>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A service that takes some time for each call.
#[derive(Debug, Clone)]
pub(crate) struct Slow {
    pub(crate) time: Duration,
    pub(crate) gauge: Arc<Gauge>,
}

pub(crate) fn slow(time: Duration) -> Slow {
    Slow { time, gauge: Arc::default() }
}

impl Service<Req> for Slow {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let now = self.gauge.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.gauge.most.fetch_max(now, Ordering::SeqCst);
        let inside = Inside(self.gauge.clone());
        let name = request.headers().get("x-name").and_then(|name| name.to_str().ok()).unwrap_or_default().to_owned();
        self.gauge.served.lock().unwrap().push(name);
        let time = self.time;
        Box::pin(async move {
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            drop(inside);
            Ok(Response::new(Full::default()))
        })
    }
}

pub(crate) fn named(mut request: Req, name: impl std::fmt::Display) -> Req {
    request.headers_mut().insert("x-name", name.to_string().parse().unwrap());
    request
}

/// A waker that counts.
#[derive(Debug, Default)]
pub(crate) struct Wakes(pub(crate) AtomicUsize);

impl Wakes {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The virtual time that something takes.
pub(crate) async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let done = what.await;
    (done, start.elapsed())
}

/// The `code` of a local answer.
pub(crate) async fn code<B: Body<Data = Bytes>>(response: Response<B>) -> String
where
    B::Error: std::fmt::Debug,
{
    use http_body_util::BodyExt;
    assert!(response.extensions().get::<tower_429::LocalRejection>().is_some(), "not a local answer");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    json["error"]["code"].as_str().unwrap().to_owned()
}
