//! tower's own retry with the policy that people write by hand: it honours hints, and else backs off with jitter.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Sleep;
use tower::ServiceBuilder;
use tower::retry::Policy;
use tower_429_testing::ProviderBody;

use super::Setting;
use super::by_hand::{hint, is_throttled};
use crate::run::{Client, client};
use crate::wire::Wire;

#[derive(Debug, Clone)]
struct Hints {
    left: u32,
    /// Doubled by each wait without a hint.
    backoff: f64,
}

impl Policy<Request<Full<Bytes>>, Response<ProviderBody>, Infallible> for Hints {
    type Future = Sleep;

    fn retry(
        &mut self,
        _: &mut Request<Full<Bytes>>,
        result: &mut Result<Response<ProviderBody>, Infallible>,
    ) -> Option<Sleep> {
        let response = result.as_ref().ok().filter(|response| is_throttled(response.status()))?;
        self.left = self.left.checked_sub(1)?;
        let wait = hint(response.headers()).map_or_else(
            || {
                self.backoff *= 2.0;
                (self.backoff / 2.0).min(30.0) * fastrand::f64()
            },
            |hint| hint * (1.0 + 0.2 * fastrand::f64()),
        );
        Some(tokio::time::sleep(Duration::try_from_secs_f64(wait).unwrap_or_default()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

impl Hints {
    fn new(setting: Setting) -> Self {
        Self { left: setting.retries, backoff: 0.5 }
    }
}

/// Without any limit.
pub(super) fn hints(wire: Wire, setting: Setting) -> Client {
    client(ServiceBuilder::new().retry(Hints::new(setting)).service(wire))
}

/// Above tower's concurrency limit.
pub(super) fn hints_and_limit(wire: Wire, setting: Setting) -> Client {
    client(ServiceBuilder::new().retry(Hints::new(setting)).concurrency_limit(64).service(wire))
}
