//! RetryPlan or not, and when: classify what the server said, learn from it, wait for the key's turn, send again.
//!
//! ```
//! use std::time::Duration;
//! use tower_429::RetryOn429Layer;
//!
//! // Everything automatic.
//! let plain = RetryOn429Layer::new();
//!
//! // A gateway: fail fast, tell SDKs behind it not to retry by themselves, bound the queue.
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
//! Every answer that *throttles*: 429 for too many requests, too many tokens or too many at once, and 503, 529, 498 and
//! the like that say overloaded. [`RetryOn::openai_sdk`] adds 408, 409, other 5xx and transport errors;
//! without it these are passed on like any answer that is not this layer's to handle.
//!
//! Never what cannot succeed: a quota that is used up, a request that is larger than its limit, an answer with
//! `x-should-retry: false`, and a hint beyond [`max_wait`](RetryOn429Layer::max_wait). The caller gets the server's last
//! response, byte for byte, with a [`RetryInfo`] in its extensions.
//!
//! # When
//!
//! Never before the server's own hint. A hint is the *key's*: all calls of the key wait for it, and then go at the pace
//! that the key allows, not all at once. Without a hint the waits double from [`DEFAULT_BACKOFF`] to
//! [`DEFAULT_MAX_BACKOFF`], drawn anew each time between half and all of it.
//!
//! When a quota is used up, the calls behind it are answered locally; one of them goes as a probe after 30 s, then after
//! twice as long each time, up to ten minutes, and a success opens it again. A plan, a budget or a balance (an answer whose
//! verdict says [`account`](crate::Verdict::account), such as `insufficient_quota`) closes all keys of the account with the
//! one that was told. That one probes for all; where nobody calls it, another does, when half as long has passed again or
//! up to as long. While a quota is used up, local answers repeat the server's `type` and `code`.
//!
//! # Errors inside a 200
//!
//! The events of a stream and JSON documents with status 200 are looked at as they pass by, in answers to `POST` alone. An
//! error is judged like any other answer, by [`classify`](RetryOn429Layer::classify) or in the key's dialect: a used-up quota
//! closes its key or its account at once, a throttling error cools the key down. A document counts only when it is an error
//! and nothing else: a file with a member named `error` closes nothing. A probe of a closed key opens it with the first event
//! that is no error, or at the end of a document that is none; when its body is dropped before, the next call probes.
//!
//! # Errors
//!
//! The inner service's errors pass through unchanged; the layer has none of its own. What it must throttle itself is a
//! response with a [`LocalRejection`](crate::LocalRejection) in its extensions.
//!
//! # Cancel safety
//!
//! Dropping a call's future at any point frees its permit, its place in the queue and its timer. An attempt that is on the
//! wire is dropped as the inner service drops it.
//!
//! # Fairness
//!
//! First come, first served within a class; the classes ([`Priority`](crate::Priority)) share by weight. A call keeps its
//! number through its retries, so a throttled call goes before those that came after it.
//!
//! # Runtime
//!
//! A call that has to wait needs a tokio runtime with time enabled, as does reading a 429's body when it does not
//! come at once. Nothing is spawned. A client may be shared by several runtimes, such as one for each worker: a key has a
//! timer in each runtime that has waiting calls, so a runtime that blocks or is not driven delays only its own calls.

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
