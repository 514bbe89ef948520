//! A response body of so many frames that costs nothing to read.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};

/// So many frames, ready at once, none of them allocated.
#[derive(Debug, Clone, Copy)]
pub struct Frames {
    left: usize,
}

impl Frames {
    /// A body of `left` frames.
    pub fn new(left: usize) -> Self {
        Self { left }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(br#"data: {"choices":[]}"#)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
}
