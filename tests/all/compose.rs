//! Between tower's and tower-http's own layers, and in axum.

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio_test::{assert_pending, assert_ready};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, RetryInfo, RetryOn429Layer, StopReason};
use tower_http::decompression::DecompressionLayer;
use tower_http::trace::TraceLayer;

use crate::support_limit::{Desk, Req, code, ms, request, slow, timed};

#[tokio::test(start_paused = true)]
async fn a_timeout_above_takes_a_call_out_of_the_queue() {
    let limit = ConcurrencyLimitLayer::new(1);
    let client = ServiceBuilder::new()
        .timeout(ms(250))
        .layer(RetryOn429Layer::new())
        .layer(limit.clone())
        .service(slow(ms(200)));
    let calls = join_all((0..3).map(|_| client.clone().oneshot(request())));
    let (answers, elapsed) = timed(calls).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.is_ok()).collect();
    assert_eq!((answers, elapsed), (vec![true, false, false], ms(250)));
    assert_eq!((limit.handle().in_use(), limit.handle().queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_below_ends_an_attempt_and_gives_its_permit_back() {
    let limit = ConcurrencyLimitLayer::new(1);
    let client = ServiceBuilder::new()
        .layer(RetryOn429Layer::new())
        .layer(limit.clone())
        .timeout(ms(100)) // does not count the time in the queue
        .service(slow(ms(200)));
    let (answers, elapsed) = timed(join_all((0..3).map(|_| client.clone().oneshot(request())))).await;
    assert!(
        answers.iter().all(|answer| answer.as_ref().is_err_and(|error| error.is::<tower::timeout::error::Elapsed>()))
    );
    assert_eq!(elapsed, ms(300), "100 ms each, one after another");
    assert_eq!((limit.handle().in_use(), limit.handle().queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_buffer_may_stand_above() {
    let inner = slow(ms(10));
    let client = ServiceBuilder::new()
        .buffer(4)
        .layer(RetryOn429Layer::new())
        .layer(ConcurrencyLimitLayer::new(2))
        .service(inner.clone());
    let (answers, elapsed) = timed(join_all((0..40).map(|_| client.clone().oneshot(request())))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    assert_eq!((inner.gauge.most(), elapsed), (2, ms(200)));
}

#[tokio::test(start_paused = true)]
async fn a_load_shed_above_never_sheds_and_a_queue_of_none_does() {
    let answers = async |limit: ConcurrencyLimitLayer| {
        let client = ServiceBuilder::new().load_shed().layer(limit).service(slow(ms(10)));
        let answers = join_all((0..10).map(|_| client.clone().oneshot(request()))).await;
        answers.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect::<Vec<_>>()
    };
    assert_eq!(answers(ConcurrencyLimitLayer::new(1)).await, [200; 10]);
    let mut shed = [429; 10];
    shed[0] = 200;
    assert_eq!(answers(ConcurrencyLimitLayer::new(1).max_queue(0)).await, shed);
}

#[tokio::test(start_paused = true)]
async fn the_stack_may_be_boxed_and_traced() {
    let traced = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(RetryOn429Layer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .layer(TraceLayer::new_for_http())
        .service(slow(ms(10)));
    let boxed: BoxCloneSyncService<Req, _, Infallible> = BoxCloneSyncService::new(traced);
    let calls = (0..3).map(|_| async { boxed.clone().oneshot(request()).await.unwrap().into_body().collect().await });
    let (bodies, elapsed) = timed(join_all(calls)).await;
    assert!(bodies.into_iter().all(|body| body.is_ok()));
    assert_eq!(elapsed, ms(30));
}

/// A server whose quota is used up, and which says so in gzip.
fn gzipped()
-> (impl Service<Req, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send> + Clone, Arc<AtomicUsize>) {
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = hits.clone();
    let server = tower::service_fn(move |_: Req| {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(br#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#).unwrap();
        let response = Response::builder().status(429).header("content-encoding", "gzip");
        let response = response.body(Full::from(gzip.finish().unwrap())).unwrap();
        async move { Ok::<_, BoxError>(response) }
    });
    (server, hits)
}

#[tokio::test(start_paused = true)]
async fn a_gzipped_quota_error_costs_one_request_with_decompression_below_and_all_retries_with_it_above() {
    let (server, hits) = gzipped();
    let below = ServiceBuilder::new().layer(RetryOn429Layer::new()).layer(DecompressionLayer::new()).service(server);
    let (answer, elapsed) = timed(below.oneshot(request())).await;
    let info = answer.unwrap().extensions().get::<RetryInfo>().unwrap().clone();
    assert_eq!((hits.load(Ordering::SeqCst), elapsed), (1, ms(0)));
    assert_eq!(info.stopped, Some(StopReason::Permanent));

    let (server, hits) = gzipped();
    let above =
        ServiceBuilder::new().layer(DecompressionLayer::new()).layer(RetryOn429Layer::new().seed(1)).service(server);
    let (answer, elapsed) = timed(above.oneshot(request())).await;
    let answer = answer.unwrap();
    let stopped = answer.extensions().get::<RetryInfo>().unwrap().stopped;
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"{\"error\""), "what the caller gets is readable all the same");
    // Nobody can read why it was throttled: five useless retries.
    assert_eq!((hits.load(Ordering::SeqCst), stopped), (6, Some(StopReason::RetriesSpent)));
    assert!(elapsed > ms(3_000));
}

#[tokio::test(start_paused = true)]
async fn axum_keeps_infallible_and_a_full_queue_is_answered_locally() {
    let handler = async || {
        tokio::time::sleep(ms(100)).await;
        "done"
    };
    let limit = ConcurrencyLimitLayer::new(1).max_queue(1);
    let app: axum::Router = axum::Router::new().route("/", axum::routing::get(handler)).layer(limit.clone());
    let call = || {
        let answer = app.clone().oneshot(Request::get("/").body(axum::body::Body::empty()).unwrap());
        async move {
            let Ok::<_, Infallible>(answer) = answer.await;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (parts.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
        }
    };
    let (answers, elapsed) = timed(join_all((0..3).map(|_| call()))).await;
    assert_eq!(elapsed, ms(200));
    assert_eq!(answers.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 200, 429]);
    assert_eq!((answers[0].1.as_str(), answers[1].1.as_str()), ("done", "done"));
    assert!(answers[2].1.contains("local_queue_full"), "{}", answers[2].1);
    assert_eq!((limit.handle().in_use(), limit.handle().queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_streaming_handler_in_axum_holds_its_permit_to_the_end_of_the_stream() {
    let handler = async || {
        let chunks = futures_util::stream::iter(["a", "b", "c"]).then(async |chunk| {
            tokio::time::sleep(ms(100)).await;
            Ok::<_, Infallible>(Bytes::from(chunk))
        });
        axum::body::Body::from_stream(chunks)
    };
    use futures_util::StreamExt;
    let limit = ConcurrencyLimitLayer::new(1);
    let app: axum::Router = axum::Router::new().route("/", axum::routing::get(handler)).layer(limit.clone());
    let calls = (0..2).map(|_| async {
        let answer = app.clone().oneshot(Request::get("/").body(axum::body::Body::empty()).unwrap()).await.unwrap();
        answer.into_body().collect().await.unwrap().to_bytes()
    });
    let (bodies, elapsed) = timed(join_all(calls)).await;
    assert_eq!((bodies, elapsed), (vec![Bytes::from("abc"); 2], ms(600)));
}

#[test]
fn composed_services_are_clone_send_sync_and_static_and_their_futures_send() {
    fn service<S>(service: &S)
    where
        S: Service<Req, Future: Send, Response: Send, Error: Send> + Clone + Send + Sync + 'static,
    {
        let _ = service.clone();
    }
    service(&ConcurrencyLimitLayer::new(1).layer(Desk::default()));
    service(&RetryOn429Layer::new().layer(Desk::default()));
    service(&RetryOn429Layer::new().layer(ConcurrencyLimitLayer::new(1).per_key().layer(slow(ms(0)))));
    service(&ConcurrencyLimitLayer::new(1).layer(RetryOn429Layer::new().no_replay().layer(slow(ms(0)))));
    service(&tower_429::BufferBodyLayer::new().layer(
        RetryOn429Layer::new().clone_body(tower_429::BufferedBody::try_clone).layer(tower::service_fn(
            |_: Request<tower_429::BufferedBody<Full<Bytes>>>| async {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            },
        )),
    ));
}

#[tokio::test(start_paused = true)]
async fn a_stack_over_what_is_not_send_runs_on_one_thread() {
    let seen = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = seen.clone();
    let inner = tower::service_fn(move |_: Request<Full<Bytes>>| {
        let count = count.clone();
        async move {
            tokio::time::sleep(ms(10)).await;
            count.set(count.get() + 1);
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    });
    let client =
        ServiceBuilder::new().layer(RetryOn429Layer::new()).layer(ConcurrencyLimitLayer::new(1)).service(inner);
    let local = tokio::task::LocalSet::new();
    let calls = (0..3).map(|_| local.spawn_local(client.clone().oneshot(request()))).collect::<Vec<_>>();
    let (_, elapsed) = timed(local.run_until(join_all(calls))).await;
    assert_eq!((seen.get(), elapsed), (3, ms(30)));
}

#[test]
fn the_futures_are_small() {
    fn size<S: Service<Req>>(_: &S) -> usize {
        size_of::<S::Future>()
    }
    let inner =
        tower::service_fn(|_: Req| std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))));
    let limit = size(&ConcurrencyLimitLayer::new(1).layer(inner));
    let retry = size(&RetryOn429Layer::new().layer(inner));
    let both = size(&RetryOn429Layer::new().layer(ConcurrencyLimitLayer::new(1).layer(inner)));
    println!("futures in bytes: inner {}, limit {limit}, retry {retry}, both {both}", size(&inner));
    assert!(limit <= size(&inner) + 64, "{limit}");
    assert!(both <= size(&inner) + 900, "{both}");
}

#[tokio::test(start_paused = true)]
async fn a_call_keeps_the_error_of_the_inner_service() {
    let limit = ConcurrencyLimitLayer::new(1).max_queue(0);
    let (desk, mut client) = (Desk::default(), None);
    let client = client.insert(RetryOn429Layer::new().layer(limit.layer(desk.clone())));
    let mut call = tokio_test::task::spawn(client.call(request()));
    assert_pending!(call.poll());
    let mut full = tokio_test::task::spawn(client.call(request()));
    let answer = assert_ready!(full.poll()).unwrap();
    assert_eq!(code(answer).await, "local_queue_full");
    desk.take().fail();
    assert_eq!(assert_ready!(call.poll()).err(), Some(crate::support_limit::Boom));
}
