//! Streaming request bodies, made replayable up to a cap.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use tower::{Layer, Service, ServiceExt};
use tower_429::{BufferBodyLayer, BufferedBody, RetryInfo, RetryOn429Layer, StopReason};

use crate::support_limit::{Boom, Scripted, Step};

type Part = Result<Frame<Bytes>, Boom>;
type Streaming = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Part>>>;

fn streaming(parts: &[&'static str]) -> Streaming {
    let frames: Vec<Part> = parts.iter().map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes())))).collect();
    StreamBody::new(futures_util::stream::iter(frames))
}

/// What a server has received: each body, or the error that broke it off, and its trailers.
type Received = Arc<Mutex<Vec<(Result<String, String>, Option<HeaderMap>, Option<u64>)>>>;

/// Refuses the first `429s` calls.
fn server<B: Body<Data = Bytes, Error: std::fmt::Display>>(
    throttles: usize,
) -> (impl Service<Request<B>, Response = Response<Full<Bytes>>, Error = Infallible> + Clone, Received) {
    let received = Received::default();
    let seen = received.clone();
    let server = tower::service_fn(move |request: Request<B>| {
        let seen = seen.clone();
        async move {
            let exact = request.body().size_hint().exact();
            let body = request.into_body().collect().await;
            let (body, trailers) = match body {
                Err(error) => (Err(error.to_string()), None),
                Ok(body) => {
                    let trailers = body.trailers().cloned();
                    (Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap()), trailers)
                }
            };
            let mut seen = seen.lock().unwrap();
            seen.push((body, trailers, exact));
            let status = if seen.len() <= throttles { 429 } else { 200 };
            Ok::<_, Infallible>(Response::builder().status(status).body(Full::default()).unwrap())
        }
    });
    (server, received)
}

/// Sends a body through a buffer of 8 bytes, a retry and a server that throttles the first call.
async fn sent<B: Body<Data = Bytes, Error: std::fmt::Display>>(body: B) -> (Response<impl Sized>, Received) {
    let (server, received) = server::<BufferedBody<B>>(1);
    let retry = RetryOn429Layer::new().clone_body(BufferedBody::try_clone);
    let client = BufferBodyLayer::new().max(8).layer(retry.layer(server));
    (client.oneshot(Request::new(body)).await.unwrap(), received)
}

fn bodies(received: &Received) -> Vec<Result<String, String>> {
    received.lock().unwrap().iter().map(|(body, ..)| body.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_up_to_the_cap_is_sent_again_byte_for_byte() {
    for parts in [&["four", "more"][..], &["eight by"], &["1", "2", "3", "4", "5", "6", "7", "8"], &["", "one", ""]] {
        let (answer, received) = sent(streaming(parts)).await;
        assert_eq!(answer.status(), 200, "{parts:?}");
        assert_eq!(bodies(&received), vec![Ok(parts.concat()); 2]);
        let exact = Some(parts.concat().len() as u64);
        assert!(received.lock().unwrap().iter().all(|(_, _, size)| *size == exact), "{parts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_beyond_the_cap_is_sent_once_and_whole() {
    for parts in [&["four", "more", "!"][..], &["nine byte"], &["12345678", "9", "and so on", "to the end"]] {
        let (answer, received) = sent(streaming(parts)).await;
        assert_eq!(answer.status(), 429, "{parts:?}");
        let stopped = answer.extensions().get::<RetryInfo>().unwrap().stopped;
        assert_eq!(stopped, Some(StopReason::NotReplayable));
        assert_eq!(bodies(&received), [Ok(parts.concat())]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_says_that_it_is_too_long_is_not_read_ahead() {
    let (answer, received) = sent(Full::<Bytes>::from("nine byte")).await;
    assert_eq!(answer.status(), 429);
    let received = received.lock().unwrap();
    assert_eq!((received[0].0.as_deref(), received[0].2), (Ok("nine byte"), Some(9)), "its size stays exact");
}

#[tokio::test(start_paused = true)]
async fn an_empty_body_stays_empty_and_ended() {
    let (answer, received) = sent(Full::<Bytes>::default()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(bodies(&received), vec![Ok(String::new()); 2]);
    let (answer, received) = sent(streaming(&[])).await;
    assert_eq!(answer.status(), 200);
    assert!(received.lock().unwrap().iter().all(|(_, _, size)| *size == Some(0)));
}

#[tokio::test(start_paused = true)]
async fn an_error_within_the_body_reaches_the_server_after_what_came_before_it() {
    let frames: Vec<Part> = vec![Ok(Frame::data("one".into())), Err(Boom), Ok(Frame::data("two".into()))];
    let (answer, received) = sent(StreamBody::new(futures_util::stream::iter(frames))).await;
    assert_eq!(bodies(&received), [Err("boom".to_owned())], "never a part for the whole, and never twice");
    assert_eq!(answer.status(), 429);
}

#[tokio::test(start_paused = true)]
async fn trailers_are_sent_each_time() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "7".parse().unwrap());
    let frames: Vec<Part> = vec![Ok(Frame::data("one".into())), Ok(Frame::trailers(trailers.clone()))];
    let (answer, received) = sent(StreamBody::new(futures_util::stream::iter(frames))).await;
    assert_eq!(answer.status(), 200);
    let received = received.lock().unwrap();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|(body, sent, _)| *body == Ok("one".to_owned()) && sent.as_ref() == Some(&trailers)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_waited_for_and_its_size_becomes_known() {
    let script = [Step::Pending, Step::Data("one"), Step::Pending, Step::Data("two"), Step::Pending];
    let (answer, received) = sent(Scripted::new(script)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(bodies(&received), vec![Ok("onetwo".to_owned()); 2]);
    assert!(received.lock().unwrap().iter().all(|(_, _, size)| *size == Some(6)));
}
