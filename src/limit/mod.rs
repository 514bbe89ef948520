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
//! * A permit is guard until the response *body* has ended, failed or been dropped, or is [lent](#unread-bodies); tower's is
//!   free again when the response head is there, so that streams do not count. [`ReleaseAt::Headers`] brings tower's
//!   behaviour.
//! * `poll_ready` is the inner service's: the limit itself is always ready, and a call waits in its own future. A
//!   `load_shed` above it never sheds: use [`max_queue(0)`](ConcurrencyLimitLayer::max_queue).
//! * It needs an inner service that is `Clone`, and changes the response's body type to
//!   [`ResponseBody`](crate::ResponseBody).
//! * All services that a layer makes share its limit, clones of the layer, too; tower's layer makes a new limit each
//!   time.
//! * A waiter that was woken and is not polled again loses its turn after 20 ms, not its position. tower's limit waits for
//!   it for ever.
//! * `ServiceBuilder::concurrency_limit` is tower's; ours is added with `.layer(ConcurrencyLimitLayer::new(n))`.
//!
//! # Unread bodies
//!
//! A caller may collect many response heads before it reads a body: `join_all` of the calls, or a loop over
//! `buffered(n)` that makes a further call. Each unread body holds its permit, so the calls that wait would never go.
//! Therefore a permit can be *lent*:
//!
//! * A permit is lent when calls wait for it and its response body has not been polled once for
//!   [`DEFAULT_LEND_UNREAD_AFTER`] (1 s) since the caller got the head. The body that has been unread for longest goes
//!   first. No more permits are lent than let the waiting calls go.
//! * A lent permit no longer counts as in use. It is never taken back, and the body stays readable. When the body ends,
//!   nothing more is released.
//! * A body that has been polled once keeps its permit, however slow its reader is.
//! * At most n calls await their head at any time. The server may see more than n unfinished responses.
//! * A call that awaits its head keeps its permit, even if nobody polls its future. Poll it or drop it.
//!
//! [`LimitHandle::lent`] counts the permits that are lent now. [`RetryOn429Layer`](crate::RetryOn429Layer) lends its permits
//! in the same way, and reports it as [`QuotaEvent::PermitsLent`](crate::QuotaEvent::PermitsLent). Both layers change the time, or
//! turn lending off, with `lend_unread_after`. A layer above that reads a part of the body (decompression,
//! `peek_first_event`) counts as the body's reader for the layers below it.
//!
//! # Fairness
//!
//! First come, first served within a class; the classes ([`Priority`](crate::Priority)) share by weight.
//!
//! # Cancel safety
//!
//! Dropping a call's future at any point frees its permit or its place in the queue.

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
