//! Who shares a limit with a call, what it costs, and the gate that decides.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, request};
use http_body::Body;

use super::layer::Shared;
use crate::call::{Cost, QuotaKey};
use crate::classify::{BucketSnapshot, RateLimitSnapshot, Unit};
use crate::dialect::Dialect;
use crate::peek;
use crate::quota::Gate;
use crate::replay::CloneBody;
use crate::room::Room;

impl Shared {
    /// Marks a call before its first attempt.
    pub(super) fn mark(&self, parts: &mut request::Parts) {
        if let Some(name) = &self.config.idempotency_key
            && !parts.headers.contains_key(name)
        {
            let key = format!("{:032x}", fastrand::Rng::new().u128(..));
            if let Ok(key) = HeaderValue::try_from(key) {
                parts.headers.insert(name, key);
            }
        }
    }

    /// What an answer's headers show of the key's limits.
    pub(super) fn shown(&self, headers: &HeaderMap) -> Option<RateLimitSnapshot> {
        let shown = RateLimitSnapshot::from_headers(headers)?;
        let tokens = |bucket: &BucketSnapshot| bucket.dimension.unit() != Unit::Requests;
        if !self.quotas.counts_tokens() && shown.buckets().iter().any(tokens) {
            self.quotas.note_tokens();
        }
        Some(shown)
    }

    /// Who shares a limit with this call, what it costs, and the gate that decides.
    pub(super) fn identify<C: CloneBody<B>, B: Body>(
        &self,
        replay: &C,
        parts: &request::Parts,
        body: &B,
    ) -> (QuotaKey, Cost, Arc<Room<Gate>>) {
        let config = &self.config;
        let mut peeked: Option<Option<Bytes>> = None;
        let given = parts.extensions.get::<QuotaKey>().copied();
        let given = given.or_else(|| config.key.as_ref().and_then(|of| of(parts)));
        let key = given.unwrap_or_else(|| {
            let model = peek::model_in_path(parts.uri.path()).or_else(|| {
                let body = peeked.insert(replay.peek(body, peek::PEEK_MAX)).as_ref()?;
                peek::model(body)
            });
            let model = model.unwrap_or_default();
            QuotaKey::of(parts, config.pool.map_or(model, |of| of(model)))
        });
        let dialect = || config.dialect.unwrap_or_else(|| Dialect::for_host(parts.uri.host().unwrap_or_default()));
        let gate = self.quotas.gate(key, &config.gate, dialect);
        let cost = parts.extensions.get::<Cost>().copied();
        let cost = cost.or_else(|| {
            if !self.quotas.counts_tokens() {
                return None; // no request need be read to its end before a limit on tokens is known
            }
            let pricing = gate.look(|gate| gate.dialect().pricing);
            let body = peeked.get_or_insert_with(|| replay.peek(body, peek::PEEK_MAX)).clone().unwrap_or_default();
            let estimated = config.tokens.as_ref().and_then(|estimator| estimator.estimate(parts, &body));
            Some(estimated.unwrap_or_else(|| peek::cost(pricing, &body)))
        });
        (key, cost.unwrap_or(Cost::tokens(0.0)), gate)
    }
}
