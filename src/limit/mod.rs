//! At most so many calls at once, each to the end of its response body.
//!
//! ```
//! use std::time::Duration;
//! use tower_429::ConcurrencyLimitLayer;
//!
//! // 20 at once in all; whoever comes after them waits.
//! let plain = ConcurrencyLimitLayer::new(20);
//!
//! // 8 at once for each quota key; at most 100 wait, nobody longer than 10 s.
//! let bounded = ConcurrencyLimitLayer::new(8).per_key().max_queue(100).queue_timeout(Duration::from_secs(10));
//! # let _ = (plain, bounded);
//! ```
//!
//! # Differences from `tower::limit::ConcurrencyLimit`
//!
//! * A slot is held until the response *body* has ended, failed or been dropped; tower's is free again when the response
//!   head is there, so that streams do not count. [`ReleaseAt::Headers`] brings tower's behaviour.
//! * `poll_ready` is the inner service's: the limit itself is always ready, and a call waits in its own future. A
//!   `load_shed` above it never sheds: use [`max_queue(0)`](ConcurrencyLimitLayer::max_queue).
//! * It needs an inner service that is `Clone`, and changes the response's body type to
//!   [`ResponseBody`](crate::ResponseBody).
//! * All services that a layer makes share its limit, clones of the layer, too; tower's layer makes a new limit each
//!   time.
//! * A waiter that was woken and is not polled again loses its turn after 20 ms, not its place. tower's limit waits for
//!   it for ever.
//! * `ServiceBuilder::concurrency_limit` is tower's; ours is added with `.layer(ConcurrencyLimitLayer::new(n))`.
//!
//! # Fairness
//!
//! First come, first served within a class; the classes ([`Priority`](crate::Priority)) share by weight.
//!
//! # Cancel safety
//!
//! Dropping a call's future at any point frees its slot or its place in the queue.

mod future;
mod layer;
mod places;
mod service;

pub use layer::{ConcurrencyLimitLayer, LimitHandle, MAX_LIMIT_KEYS};
pub use service::ConcurrencyLimit;

/// When a slot is free again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReleaseAt {
    /// At the first of end of stream, error and drop of the response body.
    #[default]
    BodyEnd,
    /// As soon as the response's head is there, as tower's limit does.
    Headers,
}
