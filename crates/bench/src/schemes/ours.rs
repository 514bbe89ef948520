//! Ours: alone, over a limit of 64, and without pacing.

use tower::{Layer, ServiceBuilder};
use tower_429::{ConcurrencyLimitLayer, PacingConfig, RetryOn429Layer};

use super::Setting;
use crate::run::{Client, client};
use crate::wire::Wire;

/// The layer as `new()` makes it, but for the setting.
pub fn layer(setting: Setting) -> RetryOn429Layer {
    RetryOn429Layer::new().max_retries(setting.retries).seed(setting.seed)
}

/// `RetryOn429` alone.
pub fn ours(wire: Wire, setting: Setting) -> Client {
    client(layer(setting).layer(wire))
}

/// `RetryOn429` over `ConcurrencyLimit(64)`.
pub fn over_a_limit(wire: Wire, setting: Setting) -> Client {
    client(ServiceBuilder::new().layer(layer(setting)).layer(ConcurrencyLimitLayer::new(64)).service(wire))
}

/// Retry and the shared cooldown: nothing is held back before it is throttled.
pub(super) fn cooldown_only(wire: Wire, setting: Setting) -> Client {
    client(layer(setting).pacing(PacingConfig::off()).layer(wire))
}
