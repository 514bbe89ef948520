//! The response body of both layers. It forwards the inner body, replays a part that was read ahead, or holds a local
//! rejection.
//!
//! It holds the call's permit until the body ends, fails or is dropped.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::response::stream_errors::Observer;
use crate::wait_queue::Permit;

/// The maximum number of frames of an error body that are read ahead. It bounds the memory used by empty frames.
const MAX_FRAMES: usize = 4096;

pin_project! {
    /// The body of a response of [`RetryOn429`](crate::RetryOn429) or [`ConcurrencyLimit`](crate::ConcurrencyLimit).
    ///
    /// A successful response's frames are forwarded unchanged. `is_end_stream`, `size_hint` and trailers stay exact. An
    /// error body that was read for classification is replayed in full: the part that was read, then the rest, then its
    /// error.
    ///
    /// The call's permit is released when the body ends, fails or is dropped. Trailers end the body. If the body is not
    /// polled within 1 s (the default of `lend_unread_after`), its permit is lent to a waiting call. The body stays
    /// readable: see [unread bodies](crate::limit#unread-bodies).
    ///
    /// # Errors
    ///
    /// Errors of the inner body are forwarded unchanged.
    #[must_use = "a body that is kept without being read keeps its call's permit"]
    pub struct ResponseBody<B: Body> {
        // Fields are dropped in this order: the inner body first, then the permit.
        #[pin]
        kind: Kind<B>,
        guard: Option<BodyGuard>,
    }
}

/// The state that a body keeps until it ends: the call's permit, and the observer that finds errors in the stream and
/// reports them to the controller.
pub(crate) struct BodyGuard {
    permit: Permit,
    observer: Observer,
}

pin_project! {
    #[project = KindProj]
    enum Kind<B: Body> {
        Inner { #[pin] body: B },
        Read { read: ReadAhead<B> },
        Local { bytes: Option<Bytes> },
    }
}

impl<B: Body<Data = Bytes>> ResponseBody<B> {
    /// Wraps the inner body. The guard is dropped at once if the body has already ended.
    pub(crate) fn inner(body: B, guard: Option<BodyGuard>) -> Self {
        let guard = guard.and_then(|guard| guard.handed_out(body.is_end_stream()));
        Self { kind: Kind::Inner { body }, guard }
    }

    pub(crate) fn read(read: ReadAhead<B>, guard: Option<BodyGuard>) -> Self {
        let guard = guard.and_then(|guard| guard.handed_out(read.is_end_stream()));
        Self { kind: Kind::Read { read }, guard }
    }

    pub(crate) fn local(bytes: Bytes) -> Self {
        Self { kind: Kind::Local { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()) }, guard: None }
    }
}

impl BodyGuard {
    pub(crate) fn new(permit: Permit, observer: Observer) -> Self {
        Self { permit, observer }
    }

    /// Creates a guard with a permit and no observer.
    pub(crate) fn permit(permit: Permit) -> Self {
        Self::new(permit, Observer::default())
    }

    /// Records that the body goes to the caller. Returns `None` if the body has already ended.
    fn handed_out(mut self, over: bool) -> Option<Self> {
        if over {
            return None;
        }
        self.permit.handed_out();
        Some(self)
    }

    /// Observes a frame or the end. It may run a callback of the user, which may panic.
    fn see(&mut self, data: Option<&Bytes>, over: bool) {
        if data.is_some() {
            self.permit.delivered();
        }
        self.observer.see(data, over);
        if over && let Some((estimated, used)) = self.observer.usage() {
            self.permit.used(estimated, used);
        }
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        if let Some(guard) = this.guard {
            guard.permit.polled();
        }
        let polled = match this.kind.as_mut().project() {
            KindProj::Inner { body } => body.poll_frame(cx),
            KindProj::Read { read } => read.poll_frame(cx),
            KindProj::Local { bytes } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        };
        let frame = ready!(polled);
        // hyper's server does not poll again after an exact content-length, so check for the end after each frame.
        // Nothing follows trailers.
        if let Some(guard) = this.guard {
            let data = match &frame {
                Some(Ok(frame)) => frame.data_ref(),
                _ => None,
            };
            if data.is_some() && !this.kind.is_end_stream() {
                guard.see(data, false);
            } else if let Some(mut guard) = this.guard.take() {
                // The guard is taken out first, so that a callback that panics drops the permit, too.
                guard.see(data, true);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.kind.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Read { read } => read.size_hint(),
            Kind::Local { bytes } => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}

impl<B: Body<Data = Bytes>> Kind<B> {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Inner { body } => body.is_end_stream(),
            Self::Read { read } => read.is_end_stream(),
            Self::Local { bytes } => bytes.is_none(),
        }
    }
}

impl<B: Body<Data = Bytes> + Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::inner(B::default(), None)
    }
}

impl<B: Body> std::fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseBody")
            .field("permit", &self.guard.as_ref().map(|guard| &guard.permit))
            .finish_non_exhaustive()
    }
}

/// A body of which a bounded part is read for classification and then replayed.
///
/// The rest is boxed, because a body that has been polled cannot move and may not be `Unpin`. An error is kept until
/// the read part has been replayed, because a body polled after an error may look complete.
pub(crate) struct ReadAhead<B: Body> {
    frames: VecDeque<Frame<Bytes>>,
    len: usize,
    error: Option<B::Error>,
    rest: Option<Pin<Box<B>>>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B: Body<Data = Bytes>> ReadAhead<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { frames: VecDeque::new(), len: 0, error: None, rest: Some(Box::pin(body)), timer: None }
    }

    /// Reads until the body ends, fails, exceeds `most` bytes or takes longer than `time`, or until `enough` returns
    /// true.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        time: Option<Duration>,
        enough: impl Fn(&Self) -> bool,
    ) -> Poll<()> {
        while let Some(rest) = &mut self.rest
            && self.len < most
            && self.frames.len() < MAX_FRAMES
        {
            let Poll::Ready(frame) = rest.as_mut().poll_frame(cx) else {
                let Some(time) = time else { return Poll::Pending };
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
                ready!(timer.as_mut().poll(cx));
                break;
            };
            match frame {
                Some(Ok(frame)) => {
                    self.len += frame.data_ref().map_or(0, Bytes::len);
                    self.frames.push_back(frame);
                    if rest.is_end_stream() {
                        self.rest = None;
                    }
                    if enough(self) {
                        break;
                    }
                }
                Some(Err(error)) => {
                    self.error = Some(error);
                    self.rest = None;
                }
                None => self.rest = None,
            }
        }
        self.timer = None;
        Poll::Ready(())
    }

    /// Returns up to `most` bytes of the part that was read, in one piece.
    pub(crate) fn bytes(&self, most: usize) -> Bytes {
        let mut data = self.frames.iter().filter_map(Frame::data_ref).filter(|data| !data.is_empty());
        let Some(first) = data.next() else { return Bytes::new() };
        if data.next().is_none() || first.len() >= most {
            return first.slice(..first.len().min(most));
        }
        let mut all = Vec::with_capacity(self.len.min(most));
        for data in self.frames.iter().filter_map(Frame::data_ref) {
            all.extend_from_slice(&data[..data.len().min(most - all.len())]);
        }
        all.into()
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(frame) = self.frames.pop_front() {
            self.len -= frame.data_ref().map_or(0, Bytes::len);
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match &mut self.rest {
            Some(rest) => rest.as_mut().poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.error.is_none() && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.len as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(read);
        match &self.rest {
            Some(rest) => {
                let rest = rest.size_hint();
                hint.set_lower(read.saturating_add(rest.lower()));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
                    hint.set_upper(upper);
                }
            }
            None if self.error.is_none() => hint.set_exact(read),
            None => {}
        }
        hint
    }
}
