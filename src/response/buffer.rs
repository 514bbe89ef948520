//! Buffers streaming request bodies so that they can be sent again. A longer body is streamed and sent once.
//!
//! Put a [`BufferBodyLayer`] above a [`RetryOn429Layer`](crate::RetryOn429Layer) if the client sends bodies that cannot
//! be copied. It changes the type of the request body to [`BufferedBody`]. No other layer of the crate changes it.
//!
//! ```
//! use tower_429::{BufferBodyLayer, BufferedBody, RetryOn429Layer};
//!
//! let buffer = BufferBodyLayer::new(); // up to 8 MiB
//! let small = BufferBodyLayer::new().max(64 << 10);
//! let retry = RetryOn429Layer::new().clone_body(BufferedBody::try_clone);
//! # let _: (BufferBodyLayer, BufferBodyLayer, tower_429::RetryOn429Layer<tower_429::CloneWith<BufferedBody<String>>>) = (buffer, small, retry);
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::Request;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// The default maximum size of a buffered request body: 8 MiB.
pub const DEFAULT_BUFFER: usize = 8 << 20;

/// Buffers request bodies so that they can be sent again. See [`BufferedBody`].
#[derive(Debug, Clone, Copy)]
pub struct BufferBodyLayer {
    max: usize,
}

impl BufferBodyLayer {
    /// Creates a layer that buffers up to [`DEFAULT_BUFFER`] bytes.
    pub const fn new() -> Self {
        Self { max: DEFAULT_BUFFER }
    }

    /// Sets the maximum number of bytes that are buffered. A longer body is streamed and sent once. Default:
    /// [`DEFAULT_BUFFER`].
    #[must_use]
    pub const fn max(mut self, bytes: usize) -> Self {
        self.max = bytes;
        self
    }
}

impl Default for BufferBodyLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for BufferBodyLayer {
    type Service = BufferBody<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BufferBody { inner, max: self.max }
    }
}

/// The service of a [`BufferBodyLayer`].
///
/// The body is read before the inner service is called. A read error is returned by the buffered body, so the client
/// reports it as its own.
#[derive(Debug, Clone)]
pub struct BufferBody<S> {
    inner: S,
    max: usize,
}

impl<S, B> Service<Request<B>> for BufferBody<S>
where
    S: Service<Request<BufferedBody<B>>> + Clone,
    B: Body,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Reading may take long, so the ready instance is dropped here and a clone is polled ready after the body has
        // been read.
        let fresh = self.inner.clone();
        drop(std::mem::replace(&mut self.inner, fresh));
        let service = self.inner.clone();
        let (parts, body) = request.into_parts();
        let hopeless = body.size_hint().lower() > self.max as u64;
        let reading = Reading { body: Some(Box::pin(body)), read: Vec::new(), trailers: None, len: 0, hopeless };
        ResponseFuture { state: State::Reading { reading, max: self.max, parts: Some(parts) }, service }
    }
}

pin_project! {
    /// The response future of [`BufferBody`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<BufferedBody<B>>>,
        B: Body,
    {
        #[pin]
        state: State<S::Future, B>,
        service: S,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B: Body> {
        Reading { reading: Reading<B>, max: usize, parts: Option<http::request::Parts> },
        Readying { request: Option<Request<BufferedBody<B>>> },
        Calling { #[pin] future: F },
    }
}

struct Reading<B: Body> {
    body: Option<Pin<Box<B>>>,
    read: Vec<Bytes>,
    trailers: Option<http::HeaderMap>,
    len: usize,
    hopeless: bool,
}

impl<B: Body> Reading<B> {
    /// Reads until the body ends, fails or exceeds `max` bytes. The inner service handles a failed or long body.
    fn poll(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<BufferedBody<B>> {
        let mut error = None;
        while let Some(body) = &mut self.body
            && !self.hopeless
        {
            match ready!(body.as_mut().poll_frame(cx)) {
                None => self.body = None,
                Some(Err(failed)) => {
                    error = Some(failed);
                    self.body = None;
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(mut data) => {
                        self.len += data.remaining();
                        self.read.push(data.copy_to_bytes(data.remaining()));
                        self.hopeless = self.len > max || self.read.len() > max;
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
        let rest = self.body.take();
        let whole = rest.is_none() && error.is_none();
        // The body is joined into one piece, so that the layers below can read it.
        let mut read = std::mem::take(&mut self.read);
        if whole && read.len() > 1 {
            read = vec![read.concat().into()];
        }
        read.reverse(); // `pop` takes the next piece
        Poll::Ready(BufferedBody { read, len: self.len, trailers: self.trailers.take(), rest, error })
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: Service<Request<BufferedBody<B>>>,
    B: Body,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Reading { reading, max, parts } => {
                    let body = ready!(reading.poll(cx, *max));
                    let Some(parts) = parts.take() else { unreachable!("a body is read once") };
                    this.state.set(State::Readying { request: Some(Request::from_parts(parts, body)) });
                }
                StateProj::Readying { request } => {
                    ready!(this.service.poll_ready(cx))?;
                    let Some(request) = request.take() else { unreachable!("a request is sent once") };
                    let future = this.service.call(request);
                    this.state.set(State::Calling { future });
                }
                StateProj::Calling { future } => return future.poll(cx),
            }
        }
    }
}

/// A request body that is buffered in memory, or the buffered start and the stream of a longer one.
pub struct BufferedBody<B: Body> {
    /// The pieces in reverse order: the next one is the last.
    read: Vec<Bytes>,
    len: usize,
    trailers: Option<http::HeaderMap>,
    rest: Option<Pin<Box<B>>>,
    error: Option<B::Error>,
}

impl<B: Body> BufferedBody<B> {
    /// Returns a copy that shares the bytes, or `None` if the body is not entirely in memory.
    pub fn try_clone(&self) -> Option<Self> {
        let whole = self.rest.is_none() && self.error.is_none();
        whole.then(|| Self {
            read: self.read.clone(),
            len: self.len,
            trailers: self.trailers.clone(),
            rest: None,
            error: None,
        })
    }
}

impl<B: Body> Body for BufferedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(data) = self.read.pop() {
            self.len -= data.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let frame = ready!(rest.as_mut().poll_frame(cx));
        Poll::Ready(
            frame.map(|frame| frame.map(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))),
        )
    }

    fn is_end_stream(&self) -> bool {
        let over = self.rest.as_ref().is_none_or(|rest| rest.is_end_stream());
        self.read.is_empty() && self.error.is_none() && self.trailers.is_none() && over
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.len as u64;
        match &self.rest {
            None if self.error.is_none() => SizeHint::with_exact(read),
            None => SizeHint::default(),
            Some(rest) => {
                let rest = rest.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(read));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
                    hint.set_upper(upper);
                }
                hint
            }
        }
    }
}

// The only part that needs pinning is in a box.
impl<B: Body> Unpin for BufferedBody<B> {}

impl<B: Body> std::fmt::Debug for BufferedBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BufferedBody").field("buffered", &self.len).field("whole", &self.rest.is_none()).finish()
    }
}
