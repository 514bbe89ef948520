//! Retries throttled calls: classifies the answer, learns from it, waits for the key's turn, and sends the call again.
//!
//! ```
//! use std::time::Duration;
//! use tower_429::RetryOn429Layer;
//!
//! // The default settings.
//! let plain = RetryOn429Layer::new();
//!
//! // A gateway: fail fast, end the retry loops of SDKs behind it, limit the queue.
//! let gateway = RetryOn429Layer::new()
//!     .max_retries(2)
//!     .max_wait(Duration::from_secs(20))
//!     .mark_final(true)
//!     .max_queue(500);
//! # let _ = (plain, gateway);
//! ```
//!
//! # What is retried
//!
//! Throttled requests are retried: 429 for too many requests, too many tokens or too many at once, and 503, 529, 498 and
//! similar statuses that report overload. [`RetryOn::openai_sdk`] adds 408, 409, other 5xx and transport errors. Without it,
//! these are passed on.
//!
//! An answer that cannot be cured is never retried: an exhausted quota, a request that is larger than its limit, an answer with
//! `x-should-retry: false`, and a server delay beyond [`max_wait`](RetryOn429Layer::max_wait). The caller gets the server's
//! last response unchanged, with a [`RetryInfo`] in its extensions.
//!
//! # When
//!
//! A call is never sent before the delay that the server stated. The delay applies to the *key*: all its calls wait, and then
//! leave at the pace that the key allows. Without a stated delay, delays double from [`DEFAULT_BACKOFF`] to
//! [`DEFAULT_MAX_BACKOFF`]. Each is drawn between half of it and all of it.
//!
//! When a quota is exhausted, calls for that key fail fast. When the whole account's balance is, calls for all its keys do. (The
//! verdict then says [`account`](crate::Verdict::account), as for `insufficient_quota`.) One call is let through as a probe
//! after 30 s, then after twice as long each time, up to 10 min. A success opens the key. In an account, the key that was told
//! probes for all. If nobody calls that key, another key probes after one and a half to two times as long. Until then, local
//! answers repeat the server's `type` and `code`.
//!
//! # Errors inside a 200
//!
//! Answers to `POST` with status 200 are searched for errors while they pass: the events of a stream, and JSON documents. An
//! error is classified like any other answer, by [`classify`](RetryOn429Layer::classify) or in the key's dialect. An exhausted
//! quota closes its key or account at once. A throttling error starts the key's cooldown.
//!
//! A document counts only if it is an error and nothing else, so a file with a member named `error` closes nothing. A probe of
//! a closed key opens it with the first event that is no error, or at the end of a document that is none. If its body is
//! dropped before that, the next call probes.
//!
//! # Errors
//!
//! The inner service's errors pass through unchanged. The layer has no error of its own: a call that it rejects gets a
//! response with a [`LocalRejection`](crate::LocalRejection) in its extensions.
//!
//! # Cancel safety
//!
//! Dropping a call's future at any point releases its permit, its position in the queue and its timer. An attempt on the wire
//! is dropped as the inner service drops it.
//!
//! # Fairness
//!
//! Calls of one [`Priority`](crate::Priority) go first come, first served. The priorities share by weight. A call keeps its
//! position through its retries, so a throttled call goes before those that came after it.
//!
//! # Runtime
//!
//! A call that waits needs a tokio runtime with time enabled. So does reading the body of a 429 that does not arrive with its
//! head. Nothing is spawned. Several runtimes may share a client, such as one for each worker: a key has a timer in each
//! runtime that has waiting calls, so a runtime that blocks delays only its own calls.

mod body_errors;
mod budget;
mod call;
pub(crate) mod clone_body;
mod config;
mod context;
mod future;
mod info;
mod layer;
mod outcome;
mod policy;
mod service;
mod updates;

pub use crate::backoff::{DEFAULT_BACKOFF, DEFAULT_MAX_BACKOFF};
pub use budget::{BUDGET_CALLS, BUDGET_MAX, BUDGET_PER_SECOND};
pub use config::{ERROR_BODY_MAX, ERROR_BODY_TIME, TokenEstimator};
pub use future::ResponseFuture;
pub use info::{RetryInfo, StopReason};
pub use layer::RetryOn429Layer;
pub use policy::{DEFAULT_MAX_OTHER_RETRIES, DEFAULT_MAX_RETRIES, DEFAULT_MAX_SLEEP, RetryOn};
pub use service::RetryOn429;
