//! Over real sockets: hyper's server and client on 127.0.0.1. Nothing here asserts a point of time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, QuotaKey, RetryOn429, RetryOn429Layer, StopReason};
use tower_429_testing::{Limit, Provider};

const BARE: &str =
    r#"{"error":{"message":"Rate limit reached for fine-tuned model","type":"requests","code":"rate_limit_exceeded"}}"#;

type Stack = RetryOn429<Client<HttpConnector, Full<Bytes>>>;

fn layer() -> RetryOn429Layer {
    RetryOn429Layer::new().backoff(Duration::from_millis(2), Duration::from_millis(10))
}

fn client(layer: &RetryOn429Layer, http2: bool) -> Stack {
    let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
    layer.layer(client)
}

fn request(address: SocketAddr) -> Request<Full<Bytes>> {
    let mut request =
        Request::post(format!("http://{address}/v1/responses")).body(Full::from(r#"{"model":"m"}"#)).unwrap();
    request.extensions_mut().insert(QuotaKey::new("loopback"));
    request
}

#[derive(Clone, Default)]
struct Counts {
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

/// Refuses five times, then answers.
async fn throttle_five_times(listener: TcpListener, counts: Counts) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        counts.connections.fetch_add(1, Ordering::SeqCst);
        let requests = Arc::clone(&counts.requests);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let requests = Arc::clone(&requests);
                async move {
                    let sent = request.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(sent, r#"{"model":"m"}"#);
                    let throttled = requests.fetch_add(1, Ordering::SeqCst) < 5;
                    // Long enough to come in several pieces.
                    let body = format!("{}{}", if throttled { BARE } else { "{}" }, " ".repeat(40_000));
                    let response = Response::builder().status(if throttled { 429 } else { 200 });
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
                }
            });
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await.ok();
        });
    }
}

#[tokio::test]
async fn five_429s_and_the_answer_come_over_one_connection() {
    for http2 in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, counts) = (listener.local_addr().unwrap(), Counts::default());
        let server = tokio::spawn(throttle_five_times(listener, counts.clone()));
        let layer = layer();
        let call = client(&layer, http2).oneshot(request(address));
        let answer = tokio::time::timeout(Duration::from_secs(20), call).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.version(), if http2 { http::Version::HTTP_2 } else { http::Version::HTTP_11 });
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 40_002);
        let counted = (counts.connections.load(Ordering::SeqCst), counts.requests.load(Ordering::SeqCst));
        assert_eq!(counted, (1, 6), "http2 {http2}");
        assert_eq!(layer.quotas().snapshot(QuotaKey::new("loopback")).unwrap().in_flight, 0);
        server.abort();
    }
}

/// Reads a request, answers with these bytes, and closes the socket.
async fn cut_off(listener: TcpListener, answers: Vec<String>) {
    for answer in answers {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let mut read = 0;
        while !buffer[..read].ends_with(br#"{"model":"m"}"#) {
            read += socket.read(&mut buffer[read..]).await.unwrap();
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_socket_that_closes_within_a_body_gives_the_clients_own_error_and_the_permit_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let head = |status| format!("HTTP/1.1 {status}\r\ncontent-length: 1000\r\n\r\n");
    let throttle = format!("{}{BARE}", head("429 Too Many Requests"));
    let answers = vec![throttle.clone(), format!("{}half", head("200 OK")), throttle];
    let server = tokio::spawn(cut_off(listener, answers));
    let layer = layer();
    let in_flight = || layer.quotas().snapshot(QuotaKey::new("loopback")).unwrap().in_flight;
    let stack = client(&layer, false);

    // The 429 that is cut off is judged by what came of it, and retried.
    let answer = stack.clone().oneshot(request(address)).await.unwrap();
    assert_eq!((answer.status().as_u16(), in_flight()), (200, 1));
    let error: hyper::Error = answer.into_body().collect().await.unwrap_err();
    assert!(error.is_incomplete_message() || error.is_body_write_aborted() || error.is_closed() || !error.is_parse());
    assert_eq!(in_flight(), 0);

    // Handed back, it is cut off for its reader, too.
    let stack = client(&layer.clone().max_retries(0), false);
    let answer = stack.oneshot(request(address)).await.unwrap();
    let info = answer.extensions().get::<tower_429::RetryInfo>().unwrap();
    assert_eq!(info.stopped, Some(StopReason::RetriesSpent));
    let mut body = answer.into_body();
    let mut read = Vec::new();
    let error = loop {
        match body.frame().await.expect("a cut body does not look whole") {
            Ok(frame) => read.extend_from_slice(&frame.into_data().unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!(read, BARE.as_bytes());
    assert!(!error.is_user());
    assert_eq!(in_flight(), 0);
    server.await.unwrap();

    // Nobody listens any more: the client's own error, at once.
    assert!(client(&layer, false).oneshot(request(address)).await.unwrap_err().is_connect());
    assert_eq!(in_flight(), 0);
}

/// Takes four calls at once, for 5 ms each.
async fn four_at_once(listener: TcpListener) {
    let running = Arc::new(AtomicUsize::new(0));
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let running = Arc::clone(&running);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |_: Request<hyper::body::Incoming>| {
                let running = Arc::clone(&running);
                async move {
                    let taken = running.fetch_add(1, Ordering::SeqCst) < 4;
                    if taken {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                    let body = format!("{}{}", if taken { "{}" } else { BARE }, " ".repeat(40_000));
                    let response = Response::builder().status(if taken { 200 } else { 429 });
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
                }
            });
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await.ok();
        });
    }
}

#[tokio::test]
async fn heads_that_are_collected_before_their_bodies_are_read_all_come() {
    for http2 in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(four_at_once(listener));
        let lend_after = Some(Duration::from_millis(20));
        let limit = ConcurrencyLimitLayer::new(3).lend_unread_after(lend_after);
        let limited = limit.layer(Client::builder(TokioExecutor::new()).http2_only(http2).build_http());
        let retry = layer().lend_unread_after(lend_after).max_retries(100);
        let retried = client(&retry, http2);

        let heads = futures_util::future::try_join_all((0..9).map(|_| limited.clone().oneshot(request(address))));
        let heads = tokio::time::timeout(Duration::from_secs(60), heads).await.expect("hangs").unwrap();
        for head in heads {
            assert_eq!(head.into_body().collect().await.unwrap().to_bytes().len(), 40_002);
        }
        assert_eq!((limit.handle().in_use(), limit.handle().lent()), (0, 0), "http2 {http2}");

        let heads = futures_util::future::try_join_all((0..20).map(|_| retried.clone().oneshot(request(address))));
        let heads = tokio::time::timeout(Duration::from_secs(60), heads).await.expect("hangs").unwrap();
        for head in heads {
            assert_eq!(head.status(), 200);
            assert_eq!(head.into_body().collect().await.unwrap().to_bytes().len(), 40_002);
        }
        assert_eq!(retry.quotas().snapshot(QuotaKey::new("loopback")).unwrap().in_flight, 0);
        server.abort();
    }
}

/// Answers the first call with an event stream that never ends, throttles the second one, and answers all others.
async fn beside_a_stream(listener: TcpListener) {
    let requests = Arc::new(AtomicUsize::new(0));
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let requests = Arc::clone(&requests);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |_: Request<hyper::body::Incoming>| {
                let n = requests.fetch_add(1, Ordering::SeqCst);
                async move {
                    let event = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data("data: {}\n\n".into()))]);
                    let (kind, body) = match n {
                        0 => (
                            "text/event-stream",
                            BodyExt::boxed(StreamBody::new(event.chain(futures_util::stream::pending()))),
                        ),
                        1 => ("application/json", Full::new(Bytes::from(BARE)).boxed()),
                        _ => {
                            ("application/json", Full::new(Bytes::from("{}".to_owned() + &" ".repeat(40_000))).boxed())
                        }
                    };
                    let response = Response::builder().status(if n == 1 { 429 } else { 200 });
                    Ok::<_, Infallible>(response.header("content-type", kind).body(body).unwrap())
                }
            });
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await.ok();
        });
    }
}

#[tokio::test]
async fn calls_beside_an_open_stream_do_not_wait_for_its_end() {
    for (http2, read) in [(false, false), (false, true), (true, false), (true, true)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(beside_a_stream(listener));
        let client = client(&layer(), http2);
        let mut stream = client.clone().oneshot(request(address)).await.unwrap().into_body();
        if read {
            assert_eq!(stream.frame().await.unwrap().unwrap().into_data().unwrap(), "data: {}\n\n");
        }
        let calls = async {
            assert_eq!(client.clone().oneshot(request(address)).await.unwrap().status(), 200, "the throttled call");
            let calls = (0..16).map(|_| client.clone().oneshot(request(address)));
            let mut heads = std::pin::pin!(futures_util::stream::iter(calls).buffered(8));
            while let Some(head) = heads.next().await {
                assert_eq!(head.unwrap().into_body().collect().await.unwrap().to_bytes().len(), 40_002);
            }
        };
        tokio::time::timeout(Duration::from_secs(60), calls).await.expect("hangs");
        assert!(stream.frame().now_or_never().is_none_or(|frame| frame.is_some()), "the stream is still open");
        server.abort();
    }
}

/// 400 calls at 200 a second from an empty bucket, against the real timer: time ÷ ideal.
async fn pace() -> f64 {
    let provider = Provider::builder().requests(Limit::per_minute(12_000).starting_at(0)).build();
    let layer = RetryOn429Layer::new();
    let began = tokio::time::Instant::now();
    let calls: Vec<_> = (0..400)
        .map(|_| {
            let request = Request::post("http://server/").body(Full::<Bytes>::from(r#"{"model":"m"}"#)).unwrap();
            tokio::spawn(layer.layer(provider.clone()).oneshot(request))
        })
        .collect();
    for call in calls {
        let answer = call.await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap();
    }
    began.elapsed().as_secs_f64() / 2.0
}

#[tokio::test]
async fn the_pace_is_kept_although_timers_are_late() {
    // The best of three: a busy machine is slower, never faster.
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        best = best.min(tokio::time::timeout(Duration::from_secs(60), pace()).await.unwrap());
        if best <= 1.15 {
            return;
        }
    }
    panic!("200 calls a second took {best} times as long as they should; losing the timer's lateness costs 1.23");
}
