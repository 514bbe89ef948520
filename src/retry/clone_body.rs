//! Copies of request bodies, so that a request can be sent again.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BufMut, Bytes};
use http_body::Body;

/// Copies a request body for a further attempt.
///
/// The copy must be independent of the original, because both are sent. If it is `None`, the call is sent once, and its 429 is
/// returned.
///
/// Most clients need only [`ByClone`] (the default) or
/// [`RetryOn429Layer::clone_body`](crate::RetryOn429Layer::clone_body); implement this trait for a client whose bodies can be
/// read without being copied.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot copy a `{B}` for a retry",
    label = "this layer does not know how to copy the request body",
    note = "if the body has a method that copies it: `RetryOn429Layer::new().clone_body(Body::try_clone)`",
    note = "if it cannot be copied: `.no_replay()`, or a `BufferBodyLayer` above this layer"
)]
pub trait CloneBody<B> {
    /// Returns a copy, or `None` if this body cannot be copied.
    fn clone_body(&self, body: &B) -> Option<B>;

    /// Returns the bytes of the body that are available without waiting. They give the model and the cost of a call.
    ///
    /// The default makes a copy and polls it while it is ready, if its exact size is at most `most` bytes. A body in one piece is
    /// not copied.
    fn peek(&self, body: &B, most: u64) -> Option<Bytes>
    where
        B: Body,
    {
        let size = body.size_hint().exact()?;
        if size == 0 || size > most {
            return None;
        }
        let mut copy = pin!(self.clone_body(body)?);
        // Reading stops if the body is not ready, ends early or sends an empty frame.
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

/// Copies nothing, so each call is sent once.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoClone;

impl<B> CloneBody<B> for NoClone {
    fn clone_body(&self, _: &B) -> Option<B> {
        None
    }
}
