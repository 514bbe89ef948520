//! One call: reading the request, network latency, the decision, the service, and the response.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::ProviderBody;
use crate::answer;
use crate::body::TakenSlot;
use crate::facts::Facts;
use crate::state::Shared;
use crate::time::Timer;
use crate::verdict::Outcome;

/// Maximum size of a request body: 16 MiB. A longer body is answered with status 413.
pub const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

pin_project! {
    /// The response future of a [`Provider`](crate::Provider).
    ///
    /// If it is dropped before the request arrives, the call is not counted. If it is dropped later, the
    /// call ends on the server, as when the connection is closed.
    #[derive(Debug)]
    #[must_use = "a call is not made until its future is polled"]
    pub struct ProviderFuture<B> {
        shared: Arc<Shared>,
        headers: HeaderMap,
        #[pin]
        body: Option<B>,
        received: Vec<u8>,
        stage: Stage,
        timer: Timer,
    }
}

#[derive(Debug)]
enum Stage {
    Reading,
    Travelling { facts: Box<Facts>, arrives: Instant },
    Answering { response: Box<Response<ProviderBody>>, at: Instant, _permit: Option<TakenSlot> },
    Done,
}

impl<B> ProviderFuture<B> {
    pub(crate) fn new(shared: Arc<Shared>, request: Request<B>) -> Self {
        let (head, body) = request.into_parts();
        Self {
            shared,
            headers: head.headers,
            body: Some(body),
            received: Vec::new(),
            stage: Stage::Reading,
            timer: Timer::default(),
        }
    }
}

impl<B: Body> Future for ProviderFuture<B> {
    type Output = Result<Response<ProviderBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            *this.stage = match std::mem::replace(this.stage, Stage::Done) {
                Stage::Reading => match poll_read(this.body.as_mut(), this.received, cx) {
                    Poll::Pending => {
                        *this.stage = Stage::Reading;
                        return Poll::Pending;
                    }
                    Poll::Ready(read) => {
                        this.body.set(None);
                        let body = std::mem::take(this.received);
                        match read {
                            Ok(()) => depart(this.shared, this.headers, &body),
                            Err(status) => {
                                this.shared.lock().note_unreadable();
                                return Poll::Ready(Ok(answer::unreadable(status)));
                            }
                        }
                    }
                },
                Stage::Travelling { facts, arrives } => {
                    if this.timer.poll_until(cx, arrives).is_pending() {
                        *this.stage = Stage::Travelling { facts, arrives };
                        return Poll::Pending;
                    }
                    arrive(this.shared, &facts)
                }
                Stage::Answering { response, at, _permit } => {
                    if this.timer.poll_until(cx, at).is_pending() {
                        *this.stage = Stage::Answering { response, at, _permit };
                        return Poll::Pending;
                    }
                    return Poll::Ready(Ok(*response));
                }
                Stage::Done => panic!("the future of a call was polled after it was ready"),
            };
        }
    }
}

/// Reads the body to its end. Returns a status if this fails.
fn poll_read<B: Body>(
    mut body: Pin<&mut Option<B>>,
    received: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), StatusCode>> {
    while let Some(body) = body.as_mut().as_pin_mut() {
        let Some(frame) = ready!(body.poll_frame(cx)) else {
            break;
        };
        let Ok(frame) = frame else {
            return Poll::Ready(Err(StatusCode::BAD_REQUEST));
        };
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        if data.remaining() > MAX_BODY_BYTES - received.len() {
            return Poll::Ready(Err(StatusCode::PAYLOAD_TOO_LARGE));
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            received.extend_from_slice(chunk);
            let length = chunk.len();
            data.advance(length);
        }
    }
    Poll::Ready(Ok(()))
}

fn depart(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Stage {
    let facts = Box::new(Facts::read(headers, body, shared.config.shared_key));
    let arrives = shared.lock().depart(&facts, Instant::now());
    Stage::Travelling { facts, arrives }
}

fn arrive(shared: &Arc<Shared>, facts: &Facts) -> Stage {
    let verdict = shared.lock().arrive(facts, Instant::now());
    let at = verdict.head_at;
    let (response, permit) = match verdict.outcome {
        Outcome::Throttled { reason, wait } => (answer::throttle(&shared.config, facts, &verdict, &reason, wait), None),
        Outcome::Accepted { ends, streamed_until } => {
            let permit = (ends, verdict.number);
            let permit = TakenSlot { shared: Arc::clone(shared), key: facts.key.clone(), permit };
            match streamed_until {
                None => (answer::completion(&shared.config, facts, &verdict), Some(permit)),
                Some(end) => (answer::stream(&shared.config, facts, &verdict, end, permit), None),
            }
        }
    };
    Stage::Answering { response: Box::new(response), at, _permit: permit }
}
