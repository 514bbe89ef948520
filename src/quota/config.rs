//! The settings of a key's controller.

use std::time::Duration;

use crate::backoff::Backoff;

/// The number of calls that a new key may have in flight before any answer has come: 16.
pub const DEFAULT_INITIAL_WINDOW: u32 = 16;
/// The longest server delay that is honoured: 120 s.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(120);

/// Settings of pacing: how calls are held back before the server throttles them.
///
/// No setting is needed. The server's headers and its 429s correct all of these numbers.
///
/// ```
/// use tower_429::{PacingConfig, RetryOn429Layer};
///
/// // The limits of a fine-tuned model, known before the first answer.
/// let pacing = PacingConfig::new().requests_per_minute(60).tokens_per_minute(60_000);
/// let layer = RetryOn429Layer::new().pacing(pacing);
///
/// // Retry and cooldown only.
/// let plain = RetryOn429Layer::new().pacing(PacingConfig::off());
/// # let _ = (layer, plain);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PacingConfig {
    pub(crate) enabled: bool,
    pub(crate) initial_window: u32,
    pub(crate) requests_per_minute: Option<f64>,
    pub(crate) tokens_per_minute: Option<f64>,
}

impl PacingConfig {
    /// Pacing without numbers: everything is learned from the server. This is the layer's default.
    pub const fn new() -> Self {
        Self {
            enabled: true,
            initial_window: DEFAULT_INITIAL_WINDOW,
            requests_per_minute: None,
            tokens_per_minute: None,
        }
    }

    /// No pacing: calls are sent at once, and only retried and cooled down.
    pub const fn off() -> Self {
        let mut off = Self::new();
        off.enabled = false;
        off
    }

    /// Sets how many calls a new key may have in flight before any answer has come. 0 counts as 1. Default:
    /// [`DEFAULT_INITIAL_WINDOW`].
    #[must_use]
    pub const fn initial_window(mut self, n: u32) -> Self {
        self.initial_window = n;
        self
    }

    /// Sets the initial limit on requests per minute. It is used until the server's headers report one. 0 counts as 1.
    /// Default: none.
    #[must_use]
    pub fn requests_per_minute(mut self, n: u32) -> Self {
        self.requests_per_minute = Some(f64::from(n.max(1)));
        self
    }

    /// Sets the initial limit on tokens per minute. It is used until the server's headers report one. 0 counts as 1.
    /// Default: none.
    #[must_use]
    pub fn tokens_per_minute(mut self, n: u32) -> Self {
        self.tokens_per_minute = Some(f64::from(n.max(1)));
        self
    }
}

impl Default for PacingConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// What a layer tells the controllers of its keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ControllerConfig {
    pub(crate) pacing: PacingConfig,
    pub(crate) max_wait: Duration,
    pub(crate) backoff: Backoff,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self { pacing: PacingConfig::new(), max_wait: DEFAULT_MAX_WAIT, backoff: Backoff::default() }
    }
}
