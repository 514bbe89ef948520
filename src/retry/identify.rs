//! Who shares a limit with a call, what it costs, and the gate that decides.

use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use http_body::Body;

use super::call::Facts;
use super::layer::Shared;
use crate::call::{Cost, Deadline, NoRetry, QuotaKey, next_number};
use crate::classify::{RateLimitSnapshot, Unit};
use crate::dialect::Dialect;
use crate::peek::{self, Seen};
use crate::quota::{Admitted, Found, Origin};
use crate::replay::CloneBody;
use crate::report::Event;
use crate::room::Place;

impl Shared {
    /// What is known of a call before its first attempt.
    #[inline]
    pub(super) fn facts<C: CloneBody<B>, B: Body>(&self, replay: &C, parts: &mut Parts, body: &B) -> Facts {
        if let Some(Admitted { place, key, gate, .. }) = parts.extensions.get().cloned() {
            let ask = Cost::tokens(0.0);
            return Facts { gate, key, account: key, place, ask, deadline: None, asked: false, nested: true };
        }
        self.mark(parts);
        let (key, ask, Found { gate, account, .. }) = self.identify(replay, parts, body);
        let extensions = &parts.extensions;
        let place = Place { class: extensions.get().copied().unwrap_or_default(), number: next_number() };
        let deadline = extensions.get::<Deadline>().map(|deadline| deadline.at());
        let asked = extensions.get::<NoRetry>().is_none();
        Facts { gate, key, account, place, ask, deadline, asked, nested: false }
    }

    /// Marks a call before its first attempt.
    #[inline]
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
    fn identify<C: CloneBody<B>, B: Body>(&self, replay: &C, parts: &Parts, body: &B) -> (QuotaKey, Cost, Found) {
        let (config, Parts { uri, headers, extensions, .. }) = (&self.config, parts);
        let given = extensions.get().copied();
        let given = given.or_else(|| config.key.as_ref().and_then(|of| of(parts)));
        let in_path = if given.is_none() { peek::model_in_path(uri.path()) } else { None };
        let cost = extensions.get::<Cost>().copied();
        // No request need be read to its end before a limit on tokens is known, from an answer or from the user.
        let counts = cost.is_none() && (self.quotas.counts_tokens() || config.gate.tokens_per_minute.is_some());
        let looks = counts || (given.is_none() && in_path.is_none());
        let body = if looks { replay.peek(body, peek::PEEK_MAX) } else { None }.unwrap_or_default();
        let seen = if counts { peek::read(&body) } else { Seen { model: peek::model(&body), ..Seen::default() } };
        let key = given.unwrap_or_else(|| {
            let model = in_path.or(seen.model).unwrap_or_default();
            let pool = config.pool.map_or(model, |of| of(std::str::from_utf8(model).unwrap_or_default()).as_bytes());
            QuotaKey::of_head(uri, headers, pool)
        });
        let found = self.quotas.gate(key, &config.gate, || {
            let dialect = config.dialect.unwrap_or_else(|| Dialect::for_host(uri.host().unwrap_or_default()));
            let account = given.unwrap_or_else(|| QuotaKey::of_head(uri, headers, b""));
            Origin { dialect, account }
        });
        if let Some(max_keys) = found.too_many {
            self.report(&[(key, Event::TooManyKeys { max_keys })]);
        }
        let cost = cost.or_else(|| {
            let own = config.tokens.as_ref().filter(|_| counts).and_then(|own| own.estimate(parts, &body));
            own.or_else(|| counts.then(|| seen.cost(found.gate.look(|gate| gate.dialect().pricing))))
        });
        (key, cost.unwrap_or(Cost::tokens(0.0)), found)
    }
}

fn speaks_of_tokens(shown: &RateLimitSnapshot) -> bool {
    shown.buckets().iter().any(|bucket| bucket.dimension.unit() != Unit::Requests)
}
