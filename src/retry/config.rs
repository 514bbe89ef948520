//! The settings of a [`RetryOn429Layer`](super::RetryOn429Layer), and the state that all its services share.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, request, response};

use super::budget::Budget;
use super::policy::Allowed;
use crate::classify::Verdict;
use crate::dialect::Dialect;
use crate::event::QuotaEvent;
use crate::quota::{ControllerConfig, Quotas};
use crate::request::{Cost, QuotaKey};
use crate::response::rejection::{LocalRejection, RejectWith};
use crate::vocabulary::ReleaseAt;
use crate::wait_queue::DEFAULT_LEND_UNREAD_AFTER;

/// Maximum number of error-body bytes that are read for classification: 64 KiB.
pub const ERROR_BODY_MAX: usize = 64 << 10;
/// Maximum time for which an error body is read for classification: 2 s.
pub const ERROR_BODY_TIME: Duration = Duration::from_secs(2);

type KeyOf = Arc<dyn Fn(&request::Parts) -> Option<QuotaKey> + Send + Sync>;
type PoolOf = Arc<dyn Fn(&str) -> &str + Send + Sync>;
type OnEvent = Arc<dyn Fn(QuotaKey, &QuotaEvent) + Send + Sync>;
type ClassifyWith = Arc<dyn Fn(&response::Parts, &[u8]) -> Option<Verdict> + Send + Sync>;

/// Estimates the cost of a call, for users who bring a tokenizer.
///
/// ```
/// use tower_429::{Cost, RetryOn429Layer};
///
/// // `body` is empty if its bytes are not available.
/// let layer = RetryOn429Layer::new().tokens(|_: &http::request::Parts, body: &[u8]| Some(Cost::tokens(body.len() as f64 / 3.5)));
/// # let _ = layer;
/// ```
pub trait TokenEstimator: Send + Sync {
    /// Returns the cost of a call, or `None` for the built-in estimate.
    fn estimate(&self, parts: &request::Parts, body: &[u8]) -> Option<Cost>;
}

impl<F: Fn(&request::Parts, &[u8]) -> Option<Cost> + Send + Sync> TokenEstimator for F {
    fn estimate(&self, parts: &request::Parts, body: &[u8]) -> Option<Cost> {
        self(parts, body)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) quotas: Quotas,
    pub(super) budget: Arc<Budget>,
}

#[derive(Clone)]
pub(super) struct Config {
    pub(super) allowed: Allowed,
    pub(super) controller: Arc<ControllerConfig>,
    pub(super) max_queue: Option<usize>,
    pub(super) queue_timeout: Option<Duration>,
    pub(super) dialect: Option<&'static Dialect>,
    pub(super) pool: Option<PoolOf>,
    pub(super) key: Option<KeyOf>,
    pub(super) classify: Option<ClassifyWith>,
    pub(super) tokens: Option<Arc<dyn TokenEstimator>>,
    pub(super) idempotency_key: Option<HeaderName>,
    pub(super) retry_count: Option<HeaderName>,
    pub(super) mark_final: bool,
    pub(super) peek_first_event: bool,
    pub(super) on_event: Option<OnEvent>,
    pub(super) reject_with: RejectWith,
    pub(super) release_at: ReleaseAt,
    pub(super) lend_unread_after: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allowed: Allowed::default(),
            controller: Arc::default(),
            max_queue: None,
            queue_timeout: None,
            dialect: None,
            pool: None,
            key: None,
            classify: None,
            tokens: None,
            idempotency_key: None,
            retry_count: None,
            mark_final: false,
            peek_first_event: false,
            on_event: None,
            reject_with: Arc::new(LocalRejection::response),
            release_at: ReleaseAt::BodyEnd,
            lend_unread_after: Some(DEFAULT_LEND_UNREAD_AFTER),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("allowed", &self.allowed)
            .field("controller", &self.controller)
            .finish_non_exhaustive()
    }
}
