//! A request body for reqwest that can be copied for a retry if it is buffered.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

/// A request body that can be copied for a retry.
///
/// It replaces [`reqwest::Body`], whose `try_clone` is private. Copies of a buffered body share its bytes. A streaming body
/// cannot be copied.
///
/// ```
/// use tower_429::RetryOn429Layer;
/// use tower_429_reqwest::Body;
///
/// let layer = RetryOn429Layer::new().clone_body(Body::try_clone);
/// assert!(Body::from("buffered").try_clone().is_some());
/// assert!(Body::from(reqwest::Body::wrap("streamed".to_owned())).try_clone().is_none());
/// # let _ = layer;
/// ```
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Buffered(Bytes),
    Streaming(reqwest::Body),
}

impl Body {
    /// Copies a buffered body. The copy shares its bytes. Returns `None` for a streaming body.
    pub fn try_clone(&self) -> Option<Self> {
        self.bytes().cloned().map(Self::from)
    }

    /// Returns the bytes of a buffered body, and `None` for a streaming body.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            Kind::Buffered(bytes) => Some(bytes),
            Kind::Streaming(_) => None,
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::from(Bytes::new())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Buffered(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::from(Bytes::from_static(text.as_bytes()))
    }
}

impl From<reqwest::Body> for Body {
    fn from(mut body: reqwest::Body) -> Self {
        if body.as_bytes().is_none() {
            return Self(Kind::Streaming(body));
        }
        // `as_bytes` returns a slice. Polling returns the `Bytes`, in one frame and without a copy.
        match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => Self::from(frame.into_data().unwrap_or_default()),
            _ => Self::default(),
        }
    }
}

impl From<Body> for reqwest::Body {
    fn from(body: Body) -> Self {
        match body.0 {
            Kind::Buffered(bytes) => bytes.into(),
            Kind::Streaming(body) => body,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        match &mut self.0 {
            Kind::Buffered(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Buffered(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Streaming(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Buffered(bytes) => bytes.is_empty(),
            Kind::Streaming(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Buffered(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Streaming(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_shares_the_bytes_of_the_original() {
        let sent = Bytes::from(vec![7; 1 << 20]);
        let body = Body::from(reqwest::Body::from(sent.clone()));
        let copy = body.try_clone().unwrap();
        assert_eq!(copy.bytes().unwrap().as_ptr(), sent.as_ptr());
        let back = reqwest::Body::from(copy);
        assert_eq!(back.as_bytes().unwrap().as_ptr(), sent.as_ptr());
    }

    #[test]
    fn an_empty_body_is_buffered() {
        let body = Body::from(reqwest::Body::default());
        assert_eq!(body.bytes(), Some(&Bytes::new()));
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
    }

    #[test]
    fn a_streaming_body_stays_what_it_is() {
        let body = Body::from(reqwest::Body::wrap("abc".to_owned()));
        assert!(body.bytes().is_none() && body.try_clone().is_none());
        assert_eq!(body.size_hint().exact(), Some(3));
    }
}
