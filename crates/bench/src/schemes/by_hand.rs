//! Schemes that are no crate: nothing at all, the policy of OpenAI's Python SDK, and AIMD on what runs at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::Service;

use super::Setting;
use crate::run::{Client, client};
use crate::wire::Wire;

/// What all of these retry.
pub(super) fn is_throttled(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// Seconds that the headers ask for: milliseconds first, then seconds.
pub(super) fn hint(headers: &HeaderMap) -> Option<f64> {
    let read = |name: &str| headers.get(name)?.to_str().ok()?.parse::<f64>().ok();
    read("retry-after-ms").map(|ms| ms / 1e3).or_else(|| read("retry-after"))
}

async fn sleep(seconds: f64) {
    tokio::time::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default()).await;
}

/// One attempt; the hint of its 429 if it was throttled, read to its end if it was not.
async fn attempt(wire: &Wire, request: &Request<Full<Bytes>>) -> Result<bool, Option<f64>> {
    let Ok(response) = wire.clone().call(request.clone()).await;
    if is_throttled(response.status()) {
        return Err(hint(response.headers()));
    }
    Ok(response.status().is_success() && response.into_body().collect().await.is_ok())
}

pub(super) fn nothing(wire: Wire, _: Setting) -> Client {
    client(wire)
}

/// openai-python 3: a hint of up to 120 s exactly as it stands, without jitter, none is waited for beyond that; else
/// `min(0.5 · 2^n, 8)` less up to a quarter.
pub(super) fn python_sdk(wire: Wire, retries: i32) -> Client {
    Rc::new(move |request| {
        let wire = wire.clone();
        Box::pin(async move {
            let mut retry = 0;
            loop {
                let hint = match attempt(&wire, &request).await {
                    Ok(ok) => return ok,
                    Err(hint) => hint,
                };
                if retry >= retries || hint.is_some_and(|hint| hint > 120.0) {
                    return false;
                }
                let own = || (0.5 * 2_f64.powi(retry)).min(8.0) * (1.0 - 0.25 * fastrand::f64());
                sleep(hint.filter(|hint| *hint > 0.0).unwrap_or_else(own)).await;
                retry += 1;
            }
        })
    })
}

/// How many at once: one more for each success when nearly all are in use, a tenth less for each episode of 429s.
struct Aimd {
    limit: f64,
    in_use: usize,
    lowered: Instant,
    queue: VecDeque<oneshot::Sender<()>>,
}

impl Aimd {
    fn wake_eligible(&mut self) {
        while self.in_use < self.limit as usize
            && let Some(next) = self.queue.pop_front()
        {
            self.in_use += usize::from(next.send(()).is_ok());
        }
    }

    fn left(&mut self, sent: Instant, throttled: bool) {
        if !throttled && self.in_use as f64 > 0.8 * self.limit {
            self.limit = (self.limit + 1.0).min(1_000.0);
        } else if throttled && sent >= self.lowered {
            (self.limit, self.lowered) = ((self.limit * 0.9).max(1.0), Instant::now());
        }
        self.in_use -= 1;
        self.wake_eligible();
    }
}

pub(super) fn aimd(wire: Wire, setting: Setting) -> Client {
    let state = Aimd { limit: 10.0, in_use: 0, lowered: Instant::now(), queue: VecDeque::new() };
    let state = Rc::new(RefCell::new(state));
    Rc::new(move |request| {
        let (wire, state) = (wire.clone(), Rc::clone(&state));
        Box::pin(async move {
            for retry in 0..=setting.retries {
                let (turn, mine) = oneshot::channel();
                {
                    let mut state = state.borrow_mut();
                    state.queue.push_back(turn);
                    state.wake_eligible();
                }
                let _ = mine.await;
                let sent = Instant::now();
                let answer = attempt(&wire, &request).await;
                state.borrow_mut().left(sent, answer.is_err());
                match answer {
                    Ok(ok) => return ok,
                    Err(hint) if retry < setting.retries => {
                        let own = || (0.5 * 2_f64.powi(retry as i32)).min(30.0) * fastrand::f64();
                        sleep(hint.unwrap_or_else(own)).await;
                    }
                    Err(_) => {}
                }
            }
            false
        })
    })
}
