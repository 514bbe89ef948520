//! [`ProviderBody`]: a response body in one piece, or as events over time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::facts::Key;
use crate::state::Shared;
use crate::time::Timer;
use crate::verdict::Permit;

/// The response body of a [`Provider`](crate::Provider).
///
/// Dropping a stream before its end ends the call on the server, as closing the connection does.
#[derive(Debug)]
pub struct ProviderBody {
    pieces: VecDeque<(Option<Instant>, Bytes)>,
    timer: Timer,
    permit: Option<TakenSlot>,
}

impl ProviderBody {
    /// Creates a body in one piece.
    pub(crate) fn full(text: String) -> Self {
        let pieces = VecDeque::from([(None, Bytes::from(text))]);
        Self { pieces, timer: Timer::default(), permit: None }
    }

    /// Creates a body whose pieces arrive at their times. The call leaves at the latest after the last one.
    pub(crate) fn events(events: Vec<(Instant, Bytes)>, permit: TakenSlot) -> Self {
        let pieces = events.into_iter().map(|(at, piece)| (Some(at), piece)).collect();
        Self { pieces, timer: Timer::default(), permit: Some(permit) }
    }
}

impl Body for ProviderBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some((Some(at), _)) = self.pieces.front() {
            let at = *at;
            ready!(self.timer.poll_until(cx, at));
        }
        let piece = self.pieces.pop_front();
        if self.pieces.is_empty() {
            self.permit = None;
        }
        Poll::Ready(piece.map(|(_, piece)| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.pieces.iter().map(|(_, piece)| piece.len() as u64).sum();
        match self.pieces.front() {
            Some((Some(_), _)) => SizeHint::new(),
            _ => SizeHint::with_exact(left),
        }
    }
}

/// Counts a call as in flight until its service ends or this is dropped.
#[derive(Debug)]
pub(crate) struct TakenSlot {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: Key,
    pub(crate) permit: Permit,
}

impl Drop for TakenSlot {
    fn drop(&mut self) {
        self.shared.lock().release(&self.key, self.permit, Instant::now());
    }
}
