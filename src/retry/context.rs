//! Finds the key, the cost and the controller of a call.

use http::HeaderValue;
use http::request::Parts;
use http_body::Body;

use super::call::CallContext;
use super::config::Shared;
use crate::dialect::Dialect;
use crate::event::QuotaEvent;
use crate::quota::{Admitted, CallInfo, Found, Origin};
use crate::request::body::{BODY_MAX, Estimate};
use crate::request::{Cost, Deadline, NoRetry, QuotaKey, host, next_number};
use crate::retry::clone_body::CloneBody;
use crate::wait_queue::QueuePosition;

impl Shared {
    /// Collects what a call needs before its first attempt.
    pub(super) fn context<C: CloneBody<B>, B: Body>(&self, clone_body: &C, parts: &mut Parts, body: &B) -> CallContext {
        if let Some(Admitted { position, key, controller, .. }) = parts.extensions.get().cloned() {
            let call_info = CallInfo::new(position.number, Cost::tokens(0.0));
            return CallContext {
                controller,
                key,
                account: key,
                position,
                call_info,
                deadline: None,
                retry_allowed: false,
                nested: true,
            };
        }
        self.mark(parts);
        let (key, cost, Found { controller, account, .. }) = self.identify(clone_body, parts, body);
        let extensions = &parts.extensions;
        let position = QueuePosition { class: extensions.get().copied().unwrap_or_default(), number: next_number() };
        let deadline = extensions.get::<Deadline>().map(|deadline| deadline.instant());
        let call_info = CallInfo::new(position.number, cost);
        let retry_allowed = extensions.get::<NoRetry>().is_none();
        CallContext { controller, key, account, position, call_info, deadline, retry_allowed, nested: false }
    }

    /// Sets the idempotency key of a call.
    fn mark(&self, parts: &mut Parts) {
        if let Some(name) = &self.config.idempotency_key
            && !parts.headers.contains_key(name)
        {
            let key = format!("{:032x}", fastrand::Rng::new().u128(..));
            if let Ok(key) = HeaderValue::try_from(key) {
                parts.headers.insert(name, key);
            }
        }
    }

    /// Finds the key, the cost and the controller of a call.
    fn identify<C: CloneBody<B>, B: Body>(&self, clone_body: &C, parts: &Parts, body: &B) -> (QuotaKey, Cost, Found) {
        let (config, Parts { uri, headers, extensions, .. }) = (&self.config, parts);
        let given = extensions.get().copied();
        let given = given.or_else(|| config.key.as_ref().and_then(|of| of(parts)));
        // The body is always read, because a key may have a token limit before any answer has shown it.
        let at_hand = clone_body.peek(body, BODY_MAX);
        let is_empty = body.size_hint().exact() == Some(0);
        let body = at_hand.unwrap_or_default();
        let estimate = Estimate::of(&body);
        let pool_of = config.pool.as_ref().map(|of| &**of as &dyn Fn(&str) -> &str);
        let key = given.unwrap_or_else(|| QuotaKey::of_model(uri, headers, estimate.model, pool_of));
        let found = self.quotas.controller(key, &config.controller, || {
            let dialect = config.dialect.unwrap_or_else(|| Dialect::for_host(host::of(uri, headers)));
            let account = given.unwrap_or_else(|| QuotaKey::of_head(uri, headers, b""));
            Origin { dialect, account }
        });
        if let Some(max_keys) = found.too_many {
            self.report(&[(key, QuotaEvent::TooManyKeys { max_keys })]);
        }
        let given = extensions.get().copied();
        let given = given.or_else(|| config.tokens.as_ref().and_then(|own| own.estimate(parts, &body)));
        let cost = given.unwrap_or_else(|| match is_empty {
            true => Cost::tokens(0.0),
            false => estimate.cost(found.controller.read(|controller| controller.dialect().pricing)),
        });
        (key, cost, found)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http::Request;
    use http_body::{Frame, SizeHint};

    use super::*;
    use crate::retry::RetryOn429Layer;
    use crate::retry::clone_body::{ByClone, NoClone};

    /// A body in so many frames, which says how long it is.
    #[derive(Clone)]
    struct Frames {
        frames: VecDeque<Bytes>,
        len: u64,
    }

    impl Frames {
        fn of(text: impl Into<Bytes>, frame: usize) -> Self {
            let text = text.into();
            let frames: VecDeque<_> = text.chunks(frame).map(Bytes::copy_from_slice).collect();
            Self { frames, len: text.len() as u64 }
        }
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.frames.pop_front().map(|data| Ok(Frame::data(data))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.len)
        }
    }

    const BODY: &str = r#"{"model":"m","input":"sixteen letters.","max_tokens":10}"#;

    fn cost_of<C: CloneBody<Frames>>(layer: &RetryOn429Layer<C>, clone_body: &C, request: Request<Frames>) -> Cost {
        let (parts, body) = request.into_parts();
        layer.shared().identify(clone_body, &parts, &body).1
    }

    fn request(body: Frames) -> Request<Frames> {
        Request::post("https://api.openai.com/v1/responses").body(body).unwrap()
    }

    #[test]
    fn the_first_call_of_a_key_has_a_price_whether_its_key_is_given_or_not() {
        let price = Cost::tokens(10.0).with_input(4.0).with_output(10.0);
        let layer = RetryOn429Layer::new();
        assert_eq!(cost_of(&layer, &ByClone, request(Frames::of(BODY, 1_000))), price);
        assert_eq!(cost_of(&layer, &ByClone, request(Frames::of(BODY, 1))), price, "in frames of a byte");
        let mut own = request(Frames::of(BODY, 1_000));
        own.extensions_mut().insert(QuotaKey::new("own"));
        assert_eq!(cost_of(&layer, &ByClone, own), price);
        let own = RetryOn429Layer::new().key(|_| Some(QuotaKey::new("own")));
        assert_eq!(cost_of(&own, &ByClone, request(Frames::of(BODY, 1_000))), price);
    }

    #[test]
    fn the_price_is_unknown_where_the_body_cannot_be_read_and_none_where_it_is_empty() {
        let layer = RetryOn429Layer::new();
        assert_eq!(cost_of(&layer, &ByClone, request(Frames::of("", 1))), Cost::tokens(0.0));
        assert_eq!(cost_of(&layer, &ByClone, request(Frames::of("not json", 100))), Cost::unknown());
        assert_eq!(cost_of(&layer, &ByClone, request(Frames::of(vec![b' '; (4 << 20) + 1], 1 << 23))), Cost::unknown());
        let layer = layer.no_replay();
        assert_eq!(cost_of(&layer, &NoClone, request(Frames::of(BODY, 1_000))), Cost::unknown());
        assert_eq!(cost_of(&layer, &NoClone, request(Frames::of("", 1))), Cost::tokens(0.0));
    }

    #[test]
    fn what_the_user_says_goes_before_the_estimate() {
        let own = |tokens| move |_: &Parts, body: &[u8]| (!body.is_empty()).then_some(Cost::tokens(tokens));
        let layer = RetryOn429Layer::new().tokens(own(7.0));
        assert_eq!(cost_of(&layer, &ByClone, request(Frames::of(BODY, 1_000))), Cost::tokens(7.0));
        assert_eq!(cost_of(&layer, &ByClone, request(Frames::of("not json", 1_000))), Cost::tokens(7.0));
        assert_eq!(cost_of(&layer.no_replay(), &NoClone, request(Frames::of(BODY, 9))), Cost::unknown());
        let mut given = request(Frames::of("not json", 1_000));
        given.extensions_mut().insert(Cost::tokens(0.0));
        assert_eq!(cost_of(&RetryOn429Layer::new(), &ByClone, given), Cost::tokens(0.0));
    }
}
