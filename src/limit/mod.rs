//! Limits how many calls run at once, each to the end of its response body.
//!
//! ```
//! use std::time::Duration;
//! use tower_429::ConcurrencyLimitLayer;
//!
//! // 20 calls at once in all. Further calls wait.
//! let plain = ConcurrencyLimitLayer::new(20);
//!
//! // 8 calls at once for each quota key. At most 100 calls of each priority wait, each for at most 10 s.
//! let bounded = ConcurrencyLimitLayer::new(8).per_key().max_queue(100).queue_timeout(Duration::from_secs(10));
//! # let _ = (plain, bounded);
//! ```
//!
//! # Differences from `tower::limit::ConcurrencyLimit`
//!
//! * A permit is held until the response *body* has ended, failed or been dropped, or until it is [lent](#unread-bodies).
//!   tower's permit is released with the response head, so streams do not count. [`ReleaseAt::Headers`] does the same here.
//! * `poll_ready` is the inner service's. The limit itself is always ready, and a call waits in its own future. So a
//!   `load_shed` above it never sheds: use [`max_queue(0)`](ConcurrencyLimitLayer::max_queue).
//! * The inner service must be `Clone`. The type of the response body becomes [`ResponseBody`](crate::ResponseBody).
//! * All services that a layer or its clones make share one limit. tower's layer makes a new limit each time.
//! * If a woken call is not polled within 20 ms, the next one is tried. The stalled call keeps its position in the queue.
//!   tower's limit waits for the stalled call.
//! * `ServiceBuilder::concurrency_limit` adds tower's limit. Add this one with `.layer(ConcurrencyLimitLayer::new(n))`.
//!
//! # Unread bodies
//!
//! A caller may collect many response heads before it reads a body: `join_all` of the calls, or a loop over `buffered(n)`
//! that makes a further call. Each unread body holds its permit, so the waiting calls would never be sent. A permit can
//! therefore be *lent*:
//!
//! * A permit is lent if calls wait for it and its response body has never been polled, for
//!   [`DEFAULT_LEND_UNREAD_AFTER`] (1 s) since the caller got the head. The permit of the body that has been unread for longest
//!   is lent first. No more permits are lent than the waiting calls need.
//! * A lent permit no longer counts as in use, and it is never taken back. The body stays readable. Its end releases nothing
//!   more, and the permit no longer counts as lent.
//! * A body that has been polled once keeps its permit, however slow its reader is.
//! * At most n calls await their head at any time, apart from a [resize](LimitHandle::resize) to a smaller n. The server may see
//!   more than n unfinished responses.
//! * A call that awaits its head keeps its permit, even if nobody polls its future. Poll it or drop it.
//!
//! [`LimitHandle::lent`] counts the permits that are lent now. [`RetryOn429Layer`](crate::RetryOn429Layer) lends its permits
//! in the same way, and reports it as [`QuotaEvent::PermitsLent`](crate::QuotaEvent::PermitsLent). On both layers,
//! `lend_unread_after` sets the time or turns lending off. A layer above that reads a part of the body (decompression,
//! `peek_first_event`) counts as the body's reader for the layers below it.
//!
//! # Fairness
//!
//! Calls of one [`Priority`](crate::Priority) go first come, first served. The priorities share by weight.
//!
//! # Cancel safety
//!
//! Dropping a call's future at any point releases its permit or its position in the queue.

mod config;
mod future;
mod handle;
mod layer;
mod policy;
mod service;

pub use crate::wait_queue::DEFAULT_LEND_UNREAD_AFTER;
pub use config::MAX_LIMIT_KEYS;
pub use future::ResponseFuture;
pub use handle::LimitHandle;
pub use layer::ConcurrencyLimitLayer;
pub use service::ConcurrencyLimit;

pub use crate::vocabulary::ReleaseAt;
