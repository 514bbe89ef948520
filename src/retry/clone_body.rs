//! How a request body is copied, so that it can be sent again: the one thing that differs from client to client.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BufMut, Bytes};
use http_body::Body;

/// Copies a request body for a further attempt.
///
/// The copy must be independent of the original: both are sent. `None` means that this body cannot be copied: the call
/// is sent once, whole, and its 429 handed back.
///
/// Most clients need only [`ByClone`] (the default) or
/// [`RetryOn429Layer::clone_body`](crate::RetryOn429Layer::clone_body); implement this for a client whose bodies can be
/// looked into without being copied.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot copy a `{B}` for a retry",
    label = "this layer does not know how to copy the request body",
    note = "if the body has a method that copies it: `RetryOn429Layer::new().clone_body(Body::try_clone)`",
    note = "if it cannot be copied: `.no_replay()`, or a `BufferBodyLayer` above this layer"
)]
pub trait CloneBody<B> {
    /// A copy, or nothing if this body cannot be copied.
    fn clone_body(&self, body: &B) -> Option<B>;

    /// The body's bytes, as far as they are at hand; used to find the model and the cost of a call.
    ///
    /// By default a copy is made and polled while it is ready, when its exact size is at most `most` bytes. The bytes are
    /// not copied where the body has them in one piece.
    fn peek(&self, body: &B, most: u64) -> Option<Bytes>
    where
        B: Body,
    {
        let size = body.size_hint().exact()?;
        if size == 0 || size > most {
            return None;
        }
        let mut copy = pin!(self.clone_body(body)?);
        // A body that is not ready, ends early or sends an empty frame is read no further.
        let mut next = || match copy.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok().filter(Buf::has_remaining),
            _ => None,
        };
        let mut first = next()?;
        let first = first.copy_to_bytes(first.remaining());
        if first.len() as u64 >= size {
            return Some(first);
        }
        let mut whole = Vec::from(first);
        while (whole.len() as u64) < size
            && let Some(data) = next()
        {
            whole.put(data);
        }
        Some(whole.into())
    }
}

/// Copies bodies that are [`Clone`]: `Full<Bytes>`, `String` and the like. The default.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByClone;

#[diagnostic::do_not_recommend]
impl<B: Clone> CloneBody<B> for ByClone {
    fn clone_body(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

/// Copies bodies with a function; see [`RetryOn429Layer::clone_body`](crate::RetryOn429Layer::clone_body).
pub struct CloneWith<B>(pub(crate) fn(&B) -> Option<B>);

impl<B> CloneBody<B> for CloneWith<B> {
    fn clone_body(&self, body: &B) -> Option<B> {
        (self.0)(body)
    }
}

// By hand: a function pointer can be copied whatever its argument.
impl<B> Clone for CloneWith<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for CloneWith<B> {}

impl<B> std::fmt::Debug for CloneWith<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CloneWith")
    }
}

/// Copies nothing: each call is sent once.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoClone;

impl<B> CloneBody<B> for NoClone {
    fn clone_body(&self, _: &B) -> Option<B> {
        None
    }
}
