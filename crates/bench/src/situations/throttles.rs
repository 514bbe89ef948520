//! A server that throttles everything, in each of the ways it can say so.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::task::JoinSet;
use tower::{Layer, service_fn};

use super::Finding;
use crate::request::request;
use crate::run::{client, virtually};
use crate::scenario::MAIN;
use crate::schemes::{self, Setting};

/// What is counted: this long after the first attempt.
const SPAN: Duration = Duration::from_secs(300);
/// Attempts in that time, however many calls wait.
const ATTEMPTS: f64 = 60.0;

const RATE: &str = r#"{"error":{"message":"Rate limit reached for gpt-4o on requests per min (RPM): Limit 500, Used 500, Requested 1.","type":"requests","code":"rate_limit_exceeded"}}"#;
const BARE: &str =
    r#"{"error":{"message":"Rate limit reached for fine-tuned model","type":"requests","code":"rate_limit_exceeded"}}"#;
const AT_ONCE: &str =
    r#"{"error":{"message":"Too many concurrent requests","type":"requests","code":"concurrency_limit_exceeded"}}"#;
const OVERLOADED: &str =
    r#"{"error":{"message":"The server is overloaded","type":"server_error","code":"overloaded"}}"#;

pub(super) fn always_throttled() -> Vec<Finding> {
    let mut findings = Vec::new();
    for (kind, status, body) in
        [("rate", 429, RATE), ("bare", 429, BARE), ("at once", 429, AT_ONCE), ("overloaded", 503, OVERLOADED)]
    {
        let mut worst = 0;
        for hint in [None, Some("1"), Some("1000")] {
            worst = worst.max(attempts(status, body, hint));
        }
        let what = format!("everything throttled within 0.1 s ({kind}; no hint, 1 ms, 1 s): attempts in 300 s");
        findings.push(Finding::new(what, worst as f64, ATTEMPTS));
    }
    findings
}

fn attempts(status: u16, body: &'static str, hint: Option<&'static str>) -> usize {
    virtually(async move {
        let seen = std::rc::Rc::new(std::cell::Cell::new(0));
        let count = std::rc::Rc::clone(&seen);
        let server = service_fn(move |_: Request<Full<Bytes>>| {
            count.set(count.get() + 1);
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let mut response = Response::builder().status(status);
                if let Some(hint) = hint {
                    response = response.header("retry-after-ms", hint);
                }
                Ok::<_, Infallible>(response.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("constants"))
            }
        });
        let layer = schemes::layer(Setting { seed: 1, retries: u32::MAX }).max_sleep(Duration::from_secs(86_400));
        let client = client(layer.layer(server));
        let mut calls = JoinSet::new();
        for (number, job) in MAIN[0].jobs(1).iter().take(400).enumerate() {
            calls.spawn_local(client(request(number, job)));
        }
        tokio::time::sleep(SPAN).await;
        seen.get()
    })
}
