//! Bodies of 429s, whatever they are: the verdict, and the caller gets back every byte, trailer and error.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower_429::classify::Kind;
use tower_429::retry::{ERROR_BODY_MAX, ERROR_BODY_TIME};

use crate::support_retry::*;

/// What a caller reads of a body: its bytes, its trailers, its error.
async fn read_all(answer: Answer) -> (Vec<u8>, Option<HeaderMap>, Option<Broken>) {
    let (mut bytes, mut trailers) = (Vec::new(), None);
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
            Err(error) => return (bytes, trailers, Some(error)),
        }
    }
    (bytes, trailers, None)
}

fn gzip(text: &str) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap().into()
}

fn data(bytes: impl Into<Bytes>) -> Step {
    Step::Data(bytes.into())
}

fn pieces(text: &'static str) -> Vec<Step> {
    text.as_bytes().chunks(7).map(|chunk| data(Bytes::from_static(chunk))).collect()
}

#[tokio::test(start_paused = true)]
async fn the_caller_gets_every_byte_trailer_and_error_of_a_429_back_and_it_is_judged_as_far_as_it_can_be_read() {
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
    let start = &NO_QUOTA[..30];
    let large: Vec<u8> = NO_QUOTA.bytes().chain(std::iter::repeat_n(b' ', 10 << 20)).collect();
    let late: Vec<u8> = std::iter::repeat_n(b' ', ERROR_BODY_MAX).chain(NO_QUOTA.bytes()).collect();
    for (what, status, steps, kind) in [
        ("empty", 429, vec![], Kind::RateLimited),
        ("named", 429, vec![data(NO_QUOTA)], Kind::QuotaExhausted),
        ("in pieces", 429, pieces(NO_QUOTA), Kind::QuotaExhausted),
        ("a page", 429, vec![data("<html><body><h1>429 Too Many Requests</h1></body></html>")], Kind::RateLimited),
        ("a page", 503, vec![data("<html>Service Unavailable</html>")], Kind::Overloaded),
        ("cut off", 429, vec![data(r#"{"error":{"message":"Rate limit reached for"#)], Kind::RateLimited),
        ("large in one piece", 429, vec![data(large.clone())], Kind::QuotaExhausted),
        (
            "large in pieces",
            429,
            large.chunks(1 << 14).map(|chunk| data(chunk.to_vec())).collect(),
            Kind::QuotaExhausted,
        ),
        ("named beyond what is read", 429, vec![data(late)], Kind::RateLimited),
        ("an error in the middle", 429, vec![data(start), Step::Fail("reset")], Kind::RateLimited),
        ("an error after all of it", 429, vec![data(NO_QUOTA), Step::Fail("reset")], Kind::QuotaExhausted),
        ("an error at once", 429, vec![Step::Fail("reset")], Kind::RateLimited),
        ("slow", 429, vec![data(start), Step::Pause(ms(1_900)), data(&NO_QUOTA[30..])], Kind::QuotaExhausted),
        ("too slow", 429, vec![data(start), Step::Pause(secs(5)), data(&NO_QUOTA[30..])], Kind::RateLimited),
        ("never in time", 429, vec![Step::Pause(secs(5)), data(NO_QUOTA)], Kind::RateLimited),
        ("no text", 429, vec![data(vec![0xff, 0xfe, 0x00, 0x80, b'{'])], Kind::RateLimited),
        ("encoded", 429, vec![data(gzip(NO_QUOTA))], Kind::RateLimited),
        (
            "a code that is a number",
            429,
            vec![data(r#"{"error":{"code":429,"message":"slow down"}}"#)],
            Kind::RateLimited,
        ),
        (
            "a code that is null",
            429,
            vec![data(r#"{"error":{"code":null,"type":"insufficient_quota"}}"#)],
            Kind::QuotaExhausted,
        ),
        ("an error that is a string", 429, vec![data(r#"{"error":"Too many requests"}"#)], Kind::RateLimited),
        ("an array", 429, vec![data(r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]"#)], Kind::RateLimited),
        ("trailers", 429, vec![data(NO_QUOTA), Step::Trailers(trailers.clone())], Kind::QuotaExhausted),
        ("only trailers", 429, vec![Step::Trailers(trailers)], Kind::RateLimited),
        ("empty frames between", 429, vec![data(""), data(NO_QUOTA), data(""), data("")], Kind::QuotaExhausted),
    ] {
        let mut direct = Steps::new(steps.clone());
        let expected = {
            let (mut bytes, mut trailers, mut error) = (Vec::new(), None, None);
            while let Some(frame) = direct.frame().await {
                match frame.map(http_body::Frame::into_data) {
                    Ok(Ok(data)) => bytes.extend_from_slice(&data),
                    Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
                    Err(failed) => {
                        error = Some(failed);
                        break;
                    }
                }
            }
            (bytes, trailers, error)
        };
        let server =
            Server::new(move |_, _| Reply::body(status, Steps::new(steps.clone())).header("x-request-id", "req_1"));
        let layer = layer().max_retries(0);
        let answer = send(&client(&layer, &server), request()).await;
        assert_eq!(info(&answer).unwrap().verdict.unwrap().kind, kind, "{what}");
        assert_eq!(answer.headers().len(), 1, "{what}");
        assert_eq!(answer.headers()["x-request-id"], "req_1", "{what}");
        assert!(read_all(answer).await == expected, "{what}");
        assert_eq!(layer.quotas().snapshot(key()).unwrap().in_flight, 0, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_whose_body_stalls_is_judged_after_two_seconds_by_what_has_come() {
    let server = Server::saying([Reply::body(429, Steps::new([data(BARE), Step::Stall])), Reply::ok()]);
    let answer = send(&client(&layer(), &server), request()).await;
    assert_eq!(answer.status(), 200);
    let again = server.times()[1];
    assert!(again >= ERROR_BODY_TIME && again < ERROR_BODY_TIME + ms(502), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_of_empty_frames_without_end_stops_nobody() {
    let server = Server::saying([Reply::body(429, Steps::new([data(NO_QUOTA), Step::Endless]))]);
    let began = Instant::now();
    let answer = send(&client(&layer(), &server), request()).await;
    assert_eq!(info(&answer).unwrap().verdict.unwrap().kind, Kind::QuotaExhausted);
    assert!(began.elapsed() <= secs(2));
    let mut body = answer.into_body();
    let mut read = Vec::new();
    for _ in 0..10_000 {
        read.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    assert_eq!(read, NO_QUOTA.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn the_size_of_a_body_that_was_read_ahead_stays_exact() {
    for (steps, size) in [
        (vec![data(NO_QUOTA)], Some(NO_QUOTA.len() as u64)),
        (vec![], Some(0)),
        (vec![data(NO_QUOTA), Step::Fail("reset")], None),
        (vec![data(NO_QUOTA), Step::Stall], None),
    ] {
        let server = Server::new(move |_, _| Reply::body(429, Steps::new(steps.clone())));
        let answer = send(&client(&layer().max_retries(0), &server), request()).await;
        let hint = answer.body().size_hint();
        assert_eq!(hint.exact(), size);
        assert!(size.is_some() || hint.lower() == NO_QUOTA.len() as u64);
        assert_eq!(answer.body().is_end_stream(), size == Some(0));
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_say_nothing_of_limits_are_not_touched() {
    for status in [200, 201, 301, 304, 401, 405, 408, 409, 422, 501, 504] {
        let server = Server::new(move |_, _| Reply::body(status, Steps::new([data("a"), Step::Stall])));
        let answer = send(&client(&layer(), &server), request()).await;
        assert_eq!(answer.status(), status);
        let mut body = answer.into_body();
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) else {
            panic!("{status}: read already")
        };
        assert_eq!(frame.into_data().unwrap(), "a");
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_pending());
    }
}

#[tokio::test(start_paused = true)]
async fn the_frames_of_a_success_are_handed_on_as_they_are() {
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
    let chunk = Bytes::from(vec![7; 1 << 16]);
    let address = chunk.as_ptr();
    let server =
        Server::saying([Reply::body(200, Steps::new([data(chunk), data("b"), Step::Trailers(trailers.clone())]))]);
    let mut body = send(&client(&layer(), &server), request()).await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!((first.as_ptr(), first.len()), (address, 1 << 16), "not copied");
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "b");
    assert!(!body.is_end_stream());
    assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_error_in_the_body_of_a_success_is_the_callers_own_and_frees_the_permit() {
    let server = Server::new(|_, _| Reply::body(200, Steps::new([data("a"), Step::Fail("reset"), data("never")])));
    let layer = layer();
    let answer = send(&client(&layer, &server), request()).await;
    assert_eq!(layer.quotas().snapshot(key()).unwrap().in_flight, 1);
    let mut body = answer.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap_err(), Broken("reset"));
    assert_eq!(layer.quotas().snapshot(key()).unwrap().in_flight, 0);
    assert_eq!(server.count(), 1);
}
