//! Errors inside successes: event streams and documents that fail after a head of 200.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_429::{LocalRejection, RejectReason, RetryInfo, RetryOn429Layer, StopReason};

const LIMITED: &str = "event: error\ndata: {\"error\":{\"message\":\"Rate limit reached. Please try again in 2s.\",\"type\":\"requests\",\"code\":\"rate_limit_exceeded\"}}\n\n";
const EXHAUSTED: &str = "data: {\"error\":{\"message\":\"You exceeded your current quota.\",\"type\":\"insufficient_quota\",\"code\":\"insufficient_quota\"}}\n\n";
const DELTA: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n";

/// A content type, and the frames of a body.
type Answer = (&'static str, Vec<&'static str>);

/// A server that answers each call with the next of these bodies, in frames, and says when it was asked.
#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<Vec<Answer>>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Script {
    fn new(mut answers: Vec<Answer>) -> Self {
        answers.reverse();
        Self { answers: Arc::new(Mutex::new(answers)), asked: Arc::default() }
    }

    fn stack(
        &self,
        layer: &RetryOn429Layer,
    ) -> impl Service<
        Request<Full<Bytes>>,
        Response = Response<impl http_body::Body<Data = Bytes, Error = Infallible> + use<>>,
        Error = Infallible,
    > + Clone
    + use<> {
        let script = self.clone();
        layer.layer(service_fn(move |_: Request<Full<Bytes>>| {
            script.asked.lock().unwrap().push(Instant::now());
            let (kind, frames) = script.answers.lock().unwrap().pop().expect("an answer for each call");
            let frames = frames.into_iter().map(|frame| Ok::<_, Infallible>(Frame::data(Bytes::from(frame))));
            let body = StreamBody::new(futures_util::stream::iter(frames));
            let response = Response::builder().header("content-type", kind).body(body);
            std::future::ready(Ok::<_, Infallible>(response.unwrap()))
        }))
    }

    fn times(&self) -> Vec<Duration> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|at| *at - asked[0]).collect()
    }
}

fn request() -> Request<Full<Bytes>> {
    Request::post("https://api.openai.com/v1/chat/completions").body(Full::from("{\"model\":\"m\"}")).unwrap()
}

const SSE: &str = "text/event-stream";

#[tokio::test(start_paused = true)]
async fn a_stream_that_begins_with_a_throttling_error_is_retried_when_its_first_event_is_peeked_at() {
    let script = Script::new(vec![(SSE, vec![": hello\n\nevent: er", &LIMITED[9..]]), (SSE, vec![DELTA, DELTA])]);
    let client = script.stack(&RetryOn429Layer::new().peek_first_event(true));
    let response = client.oneshot(request()).await.unwrap();
    assert_eq!(response.extensions().get::<RetryInfo>().unwrap().attempts, 2);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), [DELTA, DELTA].concat());
    let waited = script.times()[1];
    assert!(waited >= Duration::from_secs(2) && waited <= Duration::from_millis(2501), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_is_passed_on_whole_and_cools_its_key_down() {
    let script = Script::new(vec![(SSE, vec![DELTA, LIMITED]), (SSE, vec![DELTA])]);
    let client = script.stack(&RetryOn429Layer::new().peek_first_event(true));
    let response = client.clone().oneshot(request()).await.unwrap();
    assert!(response.extensions().get::<RetryInfo>().is_none(), "the head knew nothing of it");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), [DELTA, LIMITED].concat());
    client.oneshot(request()).await.unwrap().into_body().collect().await.unwrap();
    assert!(script.times()[1] >= Duration::from_secs(2), "the next call waited for the hint: {:?}", script.times());
}

#[tokio::test(start_paused = true)]
async fn without_peeking_no_head_is_held_back() {
    let script = Script::new(vec![(SSE, vec![LIMITED])]);
    let client = script.stack(&RetryOn429Layer::new());
    let response = client.oneshot(request()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), LIMITED);
}

#[tokio::test(start_paused = true)]
async fn an_error_document_with_status_200_cools_its_key_down() {
    let error = &LIMITED["event: error\ndata: ".len()..];
    let script = Script::new(vec![("application/json", vec![error]), ("application/json", vec!["{}"])]);
    let client = script.stack(&RetryOn429Layer::new());
    for expected in [error, "{}"] {
        let response = client.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), expected);
    }
    assert!(script.times()[1] >= Duration::from_secs(2), "{:?}", script.times());
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_ends_within_a_stream_closes_the_key_and_is_never_retried() {
    let script = Script::new(vec![(SSE, vec![EXHAUSTED]), (SSE, vec![DELTA])]);
    let client = script.stack(&RetryOn429Layer::new().peek_first_event(true));
    let response = client.clone().oneshot(request()).await.unwrap();
    assert_eq!(response.extensions().get::<RetryInfo>().unwrap().stopped, Some(StopReason::Permanent));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), EXHAUSTED);
    let local = client.clone().oneshot(request()).await.unwrap();
    assert_eq!(local.extensions().get::<LocalRejection>().unwrap().reason, RejectReason::QuotaExhausted);
    tokio::time::advance(Duration::from_secs(30)).await;
    let probe = client.oneshot(request()).await.unwrap();
    assert_eq!(probe.into_body().collect().await.unwrap().to_bytes(), DELTA);
}
