//! What understanding an answer costs: a typical 429, a success's headers, and looking at a stream as it goes by.
//!
//! `cargo bench -p tower-429-bench --bench classify`. Ends with an error when a bar is missed.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_429::classify::RateLimitSnapshot;
use tower_429::{RetryOn429Layer, Verdict};

const REFUSAL: &str = r#"{
    "error": {
        "message": "Rate limit reached for gpt-4o in organization org-abcdefghijklmnop on tokens per min (TPM): Limit 30000, Used 22343, Requested 10955. Please try again in 6.596s. Visit https://platform.openai.com/account/rate-limits to learn more.",
        "type": "tokens",
        "param": null,
        "code": "rate_limit_exceeded"
    }
}
"#;
const RATE_HEADERS: [(&str, &str); 6] = [
    ("x-ratelimit-limit-requests", "500"),
    ("x-ratelimit-limit-tokens", "30000"),
    ("x-ratelimit-remaining-requests", "499"),
    ("x-ratelimit-remaining-tokens", "29812"),
    ("x-ratelimit-reset-requests", "120ms"),
    ("x-ratelimit-reset-tokens", "376ms"),
];
const OTHER_HEADERS: [(&str, &str); 4] = [
    ("date", "Tue, 24 Nov 2026 10:00:00 GMT"),
    ("content-type", "application/json"),
    ("x-request-id", "req_0123456789abcdef"),
    ("openai-processing-ms", "812"),
];

/// A bar: what is measured, the figure, and the most that is good.
struct Row(&'static str, f64, &'static str, Option<f64>);

fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
    of.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

/// Nanoseconds a run, the best of many rounds: noise only adds.
fn nanos(mut run: impl FnMut()) -> f64 {
    let round = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..1_000).for_each(|_| run());
        start.elapsed().as_secs_f64() * 1e6
    };
    (0..200).map(|_| round(&mut run)).fold(f64::INFINITY, f64::min)
}

/// The way people do it: parse everything, take one string and one integer.
fn naive(headers: &HeaderMap, body: &[u8]) -> Option<(String, u64)> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let code = value["error"]["type"].as_str()?.to_owned();
    let wait = headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    Some((code, wait.unwrap_or(1)))
}

const EVENTS: usize = 64_000;
const EVENT: &str = "data: {\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"}}]}\n\n";

fn stream() -> Response<impl Body<Data = Bytes, Error = Infallible> + Send> {
    let frames = (0..EVENTS).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from_static(EVENT.as_bytes()))));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    Response::builder().header("content-type", "text/event-stream").body(body).expect("a response of constants")
}

async fn read<S, RB>(client: &S, uri: &str) -> Duration
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone,
    S::Error: std::fmt::Debug,
    RB: Body<Data = Bytes>,
    RB::Error: std::fmt::Debug,
{
    let request = Request::post(uri).body(Full::default()).expect("a request of constants");
    let start = Instant::now();
    let body = client.clone().oneshot(request).await.expect("an answer").into_body();
    let mut body = std::pin::pin!(body);
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        size += frame.expect("a frame").data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(size, EVENTS * EVENT.len());
    start.elapsed()
}

/// How long a stream takes, and how much longer through the layer, in seconds: the medians of alternating pairs.
async fn added<A, B, RA, RB>(bare: &A, layered: &B, uri: &str, pairs: usize) -> (f64, f64)
where
    A: Service<Request<Full<Bytes>>, Response = Response<RA>> + Clone,
    A::Error: std::fmt::Debug,
    RA: Body<Data = Bytes>,
    RA::Error: std::fmt::Debug,
    B: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone,
    B::Error: std::fmt::Debug,
    RB: Body<Data = Bytes>,
    RB::Error: std::fmt::Debug,
{
    let (mut alone, mut through) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        alone.push(read(bare, uri).await.as_secs_f64());
        through.push(read(layered, uri).await.as_secs_f64());
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let alone = median(&mut alone);
    (alone, median(&mut through) - alone)
}

fn main() {
    let all = headers(&[&OTHER_HEADERS[..], &RATE_HEADERS[..]].concat());
    let few = headers(&OTHER_HEADERS);
    let body = REFUSAL.as_bytes();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let status = StatusCode::TOO_MANY_REQUESTS;
    let mut rows = vec![
        Row(
            "a typical 429: verdict",
            nanos(|| drop(black_box(Verdict::of_at(status, &all, body, now)))),
            "ns",
            Some(1e4),
        ),
        Row("the same: serde_json::Value, type, retry-after", nanos(|| drop(black_box(naive(&all, body)))), "ns", None),
        Row(
            "a success's headers, six of ten of rates",
            nanos(|| _ = black_box(RateLimitSnapshot::from_headers(&all))),
            "ns",
            Some(300.0),
        ),
        Row(
            "a success's headers, none of rates",
            nanos(|| _ = black_box(RateLimitSnapshot::from_headers(&few))),
            "ns",
            None,
        ),
    ];

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (socket, process) = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let uri = format!("http://{}/", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service_fn(|_| async { Ok::<_, Infallible>(stream()) });
                let service = hyper_util::service::TowerToHyperService::new(service);
                let io = hyper_util::rt::TokioIo::new(socket);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        });
        let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
        let socket = added(&http, &RetryOn429Layer::new().layer(http.clone()), &uri, 25).await;
        let inner = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(stream()) });
        let process = added(&inner, &RetryOn429Layer::new().layer(inner), "http://localhost/", 25).await;
        (socket, process)
    });
    rows.push(Row("a stream of 64,000 events over a socket, without the layer", socket.0 * 1e3, "ms", None));
    rows.push(Row("the same: longer through the layer, noise included", 100.0 * socket.1 / socket.0, "%", None));
    rows.push(Row("in process: added for each frame", process.1 * 1e9 / EVENTS as f64, "ns", None));
    // The socket's own noise is several percent; what the layer does is the same work in process, where it can be seen.
    rows.push(Row("that, as a part of the time over a socket", 100.0 * process.1 / socket.0, "%", Some(2.0)));

    println!("| what | measured | bar |\n|---|---|---|");
    let mut missed = 0;
    for Row(what, measured, unit, bar) in rows {
        let over = bar.is_some_and(|bar| measured > bar);
        missed += usize::from(over);
        let bar = bar.map_or(String::new(), |bar| format!("≤ {bar} {unit}"));
        println!("| {what} | {}{measured:.1} {unit} | {bar} |", if over { "**missed** " } else { "" });
    }
    if missed > 0 {
        std::process::exit(1);
    }
}
