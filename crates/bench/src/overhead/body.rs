//! A response body of so many frames that costs nothing to read, and that comes after its head.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};

/// So many frames, none of them allocated. As from a network, the first is not there at once, and that a frame was the last
/// one shows when the next is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Frames {
    left: usize,
    arrived: bool,
}

impl Frames {
    /// A body of `left` frames.
    pub fn new(left: usize) -> Self {
        Self { left, arrived: false }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.arrived {
            self.arrived = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(br#"data: {"choices":[]}"#)))))
    }
}
