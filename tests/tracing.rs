//! What the feature `tracing` tells: why a call waits, what the server said, why it was given up; and what it never tells.
//!
//! `cargo test --features tracing --test tracing`

use std::convert::Infallible;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Logs all events of this thread until the guard is dropped.
fn log() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).with_writer(log.clone());
    (log, tracing::subscriber::set_default(subscriber.finish()))
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn call() -> Request<Full<Bytes>> {
    Request::post("https://api.openai.com/v1/chat/completions")
        .header("authorization", "Bearer sk-credential")
        .body(Full::from(r#"{"model":"m","messages":[{"content":"a prompt"}]}"#))
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_wants_to_be_retried_is_not_given_up() {
    for status in [408, 409, 500] {
        let (log, _guard) = log();
        let fail = service_fn(move |_: Request<Full<Bytes>>| async move {
            Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
        });
        for (layer, told) in
            [(RetryOn429Layer::new(), false), (RetryOn429Layer::new().retry_on(tower_429::RetryOn::openai_sdk()), true)]
        {
            assert_eq!(layer.layer(fail).oneshot(call()).await.unwrap().status(), status);
            assert_eq!(log.text().contains("gave up"), told, "{status}:\n{}", log.text());
            assert_eq!(log.text().contains("WARN"), told, "{status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_within_a_success_is_told_when_it_is_read() {
    let (log, _guard) = log();
    let fail = service_fn(|_: Request<Full<Bytes>>| async {
        let body = r#"{"error":{"message":"the server's own words","code":"insufficient_quota"}}"#;
        let response = Response::builder().header("content-type", "application/json");
        Ok::<_, Infallible>(response.body(Full::<Bytes>::from(body)).unwrap())
    });
    let answer = RetryOn429Layer::new().layer(fail).oneshot(call()).await.unwrap();
    assert_eq!(log.text(), "");
    http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    for told in ["error in a body kind=\"quota_exhausted\"", "quota event=Closed"] {
        assert!(log.text().contains(told), "{told} is missing:\n{}", log.text());
    }
    assert!(!log.text().contains("own words"), "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn waiting_429s_and_giving_up_are_told_and_no_secret_is() {
    let (log, _guard) = log();
    let throttle = service_fn(|_: Request<Full<Bytes>>| async {
        let body = r#"{"error":{"message":"Rate limit reached. Please try again in 2s. (the server's own words)"}}"#;
        Ok::<_, Infallible>(Response::builder().status(429).body(Full::<Bytes>::from(body)).unwrap())
    });
    let client = RetryOn429Layer::new().max_retries(1).layer(throttle);
    let first = tokio::spawn(client.clone().oneshot(call()));
    tokio::time::sleep(Duration::from_millis(10)).await;
    client.oneshot(call()).await.unwrap();
    first.await.unwrap().unwrap();

    let log = log.text();
    for told in [
        "waiting cause=\"cooldown\"",
        "left_ms=",
        "throttled kind=\"rate_limit\"",
        "retry_after_ms=2000",
        "gave up reason=RetriesSpent",
    ] {
        assert!(log.contains(told), "{told} is missing:\n{log}");
    }
    for secret in ["sk-credential", "a prompt", "own words"] {
        assert!(!log.contains(secret), "{secret} is told:\n{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn slots_that_a_limit_lends_are_told_of_once() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());

    let answer = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("body"))) });
    let limited = ConcurrencyLimitLayer::new(2).layer(answer);
    let heads = futures_util::future::join_all((0..6).map(|_| limited.clone().oneshot(Request::new(())))).await;
    drop(heads);

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("lent the permits of unread response bodies").count(), 1, "{log}");
    assert!(log.contains("permits=2"), "{log}");
}
