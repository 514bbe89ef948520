//! Who shares a limit with a call, what it costs, and the gate that decides.

use std::mem::swap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, request};
use http_body::Body;

use super::call::Facts;
use super::layer::Shared;
use crate::call::{Cost, Deadline, NoRetry, QuotaKey, next_number};
use crate::classify::{RateLimitSnapshot, Unit};
use crate::dialect::Dialect;
use crate::peek::{self, Seen};
use crate::quota::{Admitted, Gate, Origin};
use crate::replay::CloneBody;
use crate::room::{Place, Room};

impl Shared {
    /// What is known of a call before its first attempt.
    #[inline]
    pub(super) fn facts<C: CloneBody<B>, B: Body>(&self, replay: &C, request: &mut Request<B>) -> Facts {
        if let Some(Admitted { place, key, gate, .. }) = request.extensions().get().cloned() {
            let ask = Cost::tokens(0.0);
            return Facts { gate, key, place, ask, deadline: None, asked: false, nested: true };
        }
        self.mark(request);
        let (key, ask, gate) = self.identify(replay, request);
        let extensions = request.extensions();
        let place = Place { class: extensions.get().copied().unwrap_or_default(), number: next_number() };
        let deadline = extensions.get::<Deadline>().map(|deadline| deadline.at());
        let asked = extensions.get::<NoRetry>().is_none();
        Facts { gate, key, place, ask, deadline, asked, nested: false }
    }

    /// Marks a call before its first attempt.
    #[inline]
    fn mark<B>(&self, request: &mut Request<B>) {
        if let Some(name) = &self.config.idempotency_key
            && !request.headers().contains_key(name)
        {
            let key = format!("{:032x}", fastrand::Rng::new().u128(..));
            if let Ok(key) = HeaderValue::try_from(key) {
                request.headers_mut().insert(name, key);
            }
        }
    }

    /// What an answer's headers show of the key's limits, read into an empty snapshot.
    #[inline]
    pub(super) fn shown<'a>(
        &self,
        headers: &HeaderMap,
        empty: &'a mut RateLimitSnapshot,
    ) -> Option<&'a RateLimitSnapshot> {
        let shown = empty.read(headers, None).then_some(&*empty)?;
        if !self.quotas.counts_tokens() && speaks_of_tokens(shown) {
            self.quotas.note_tokens();
        }
        Some(shown)
    }

    /// Who shares a limit with this call, what it costs, and the gate that decides.
    #[inline]
    fn identify<C: CloneBody<B>, B: Body>(
        &self,
        replay: &C,
        request: &mut Request<B>,
    ) -> (QuotaKey, Cost, Arc<Room<Gate>>) {
        let config = &self.config;
        let given = request.extensions().get::<QuotaKey>().copied();
        let given = given.or_else(|| config.key.as_ref().and_then(|of| with_parts(request, |parts| of(parts))));
        let in_path = if given.is_none() { peek::model_in_path(request.uri().path()) } else { None };
        let cost = request.extensions().get::<Cost>().copied();
        // No request need be read to its end before a limit on tokens is known, from an answer or from the user.
        let counts = cost.is_none() && (self.quotas.counts_tokens() || config.gate.tokens_per_minute.is_some());
        let looks = counts || (given.is_none() && in_path.is_none());
        let body = if looks { replay.peek(request.body(), peek::PEEK_MAX) } else { None }.unwrap_or_default();
        let seen = if counts { peek::read(&body) } else { Seen { model: peek::model(&body), ..Seen::default() } };
        let key = given.unwrap_or_else(|| {
            let model = in_path.or(seen.model).unwrap_or_default();
            let pool = config.pool.map_or(model, |of| of(std::str::from_utf8(model).unwrap_or_default()).as_bytes());
            QuotaKey::of_head(request.uri(), request.headers(), pool)
        });
        let gate = self.quotas.gate(key, &config.gate, || {
            let dialect = config.dialect.unwrap_or_else(|| Dialect::for_host(request.uri().host().unwrap_or_default()));
            let account = given.unwrap_or_else(|| QuotaKey::of_head(request.uri(), request.headers(), b""));
            Origin { dialect, account }
        });
        let cost = cost.or_else(|| {
            let own = config.tokens.as_ref().filter(|_| counts);
            let own = own.and_then(|own| with_parts(request, |parts| own.estimate(parts, &body)));
            own.or_else(|| counts.then(|| seen.cost(gate.look(|gate| gate.dialect().pricing))))
        });
        (key, cost.unwrap_or(Cost::tokens(0.0)), gate)
    }
}

fn speaks_of_tokens(shown: &RateLimitSnapshot) -> bool {
    shown.buckets().iter().any(|bucket| bucket.dimension.unit() != Unit::Requests)
}

/// Shows a request's head to a function of the user's. Only then is it taken apart: to move a request costs as much as to
/// look at it.
fn with_parts<B, T>(request: &mut Request<B>, look: impl FnOnce(&request::Parts) -> T) -> T {
    let (mut parts, ()) = Request::new(()).into_parts();
    let mut exchange = |parts: &mut request::Parts| {
        swap(request.method_mut(), &mut parts.method);
        swap(request.uri_mut(), &mut parts.uri);
        swap(request.version_mut(), &mut parts.version);
        swap(request.headers_mut(), &mut parts.headers);
        swap(request.extensions_mut(), &mut parts.extensions);
    };
    exchange(&mut parts);
    let seen = look(&parts);
    exchange(&mut parts);
    seen
}
