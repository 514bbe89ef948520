//! [`Replay`]: a request body that async-openai can build again.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_openai::middleware::HttpRequestFactory;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tower_429_reqwest::Body;

/// The request body that the layers see.
///
/// A copy of a buffered body shares its bytes. A copy of any other body, such as a multipart form, is empty. The transport
/// builds such a body again when it sends it.
#[derive(Debug)]
pub struct Replay {
    pub(crate) factory: HttpRequestFactory,
    pub(crate) built: Option<Body>,
}

impl Replay {
    pub(crate) const fn new(factory: HttpRequestFactory, body: Body) -> Self {
        Self { factory, built: Some(body) }
    }
}

impl Clone for Replay {
    fn clone(&self) -> Self {
        Self { factory: self.factory.clone(), built: self.built.as_ref().and_then(Body::try_clone) }
    }
}

/// Layers can read a body that is built. A body that is still to be built reads as empty.
impl HttpBody for Replay {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        self.built.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.built.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.built.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
