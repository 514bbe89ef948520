//! Rate-limit handling for any tower HTTP client of OpenAI-style APIs.
//!
//! [`RetryOn429Layer`] retries 429s after the delay the server asks for, fails fast when retrying cannot help, and paces
//! requests so that almost none are rejected. [`ConcurrencyLimitLayer`] limits how many requests run at once, each to the end
//! of its response body.
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # let http_client = tower::service_fn(|_: http::Request<Full<Bytes>>| async {
//! #     Ok::<_, std::convert::Infallible>(http::Response::new(Full::<Bytes>::default()))
//! # });
//!
//! let client = ServiceBuilder::new()
//!     .layer(RetryOn429Layer::new()) // classify, pace, cool down, retry: no setting is needed
//!     .layer(ConcurrencyLimitLayer::new(32)) // a limit of your own, if you want one
//!     .service(http_client);
//! # fn is_service<S: tower::Service<http::Request<Full<Bytes>>>>(_: S) {}
//! # is_service(client);
//! ```
//!
//! # The layers
//!
//! ```text
//! request ─▶ RetryOn429 ─▶ ConcurrencyLimit ─▶ [decompression] ─▶ [attempt timeout] ─▶ client
//! ```
//!
//! [`RetryOn429`] finds the key and the cost of a request, and asks the key's controller for a permit. The request waits in the
//! key's queue until the controller admits it. The answer is classified, the controller learns from it, and a throttled
//! request goes back into the queue.
//!
//! Either layer works without the other. [`RetryOn429Layer`] needs an inner service that is `Clone` and a request body that
//! can be copied ([`CloneBody`]). Neither layer changes the type of the request body or of the error. If a stack does not
//! compile, `.check_service::<_, http::Request<B>, _, _>()` on the `ServiceBuilder` makes the compiler name the missing bound.
//!
//! | topic | items |
//! |---|---|
//! | retries and delays | [`retry`], [`RetryOn`], [`RetryInfo`], [`StopReason`] |
//! | pacing of a key | [`quota`], [`PacingConfig`], [`Quotas`], [`QuotaEvent`] |
//! | concurrency limit | [`limit`], [`LimitHandle`], [`ReleaseAt`] |
//! | what a request says of itself | [`QuotaKey`], [`Cost`], [`Priority`], [`Deadline`], [`NoRetry`] |
//! | what the server said | [`classify`], [`Verdict`], [`dialect`] |
//! | answers without the server | [`LocalRejection`], [`RejectReason`] |
//! | bodies that cannot be copied | [`buffer`] |
//!
//! # Terms
//!
//! | term | meaning |
//! |---|---|
//! | call, attempt | A call is one request of the caller. An attempt is one time that it is sent. |
//! | key | The calls of one host, credential and model. They share a queue, a cooldown and all estimates ([`QuotaKey`]). |
//! | account | The keys of one host and credential. They share a plan and a balance. |
//! | permit | The right to be in flight, held from admission to the end of the response body. |
//! | window | The number of calls of a key that may be in flight at once. |
//! | cooldown | The time before which no call of a key is sent. |
//! | closed key | Its calls fail fast, except for probes ([`quota::KeyState`]). |
//! | probe | A call that is sent although the estimates speak against it, to test them. |
//! | throttle, reject | A server throttles a call. The layers reject a call locally ([`LocalRejection`]). |
//!
//! # Feature flags
//!
//! No feature is on by default. `tracing` emits an event for each call that waits, is throttled or is rejected locally.
//!
//! # Further reading
//!
//! The package has these pages in `docs/`:
//!
//! * `pacing.md`: the control scheme, with every constant and its reason
//! * `keys.md`: which requests share a quota
//! * `headers.md`: the headers and bodies that are understood
//! * `stack.md`: the order of layers, with the test behind each statement
//! * `migration.md`: from a `tower::retry` policy, `reqwest-retry` or `OpenAIRetryLayer`
//! * `simulation.md`: the measured comparison with other crates

mod backoff;
pub mod classify;
pub mod dialect;
mod event;
mod key_map;
pub mod limit;
pub mod quota;
#[cfg(doctest)]
mod readme;
mod ready;
mod request;
mod response;
pub mod retry;
mod time;
#[cfg(feature = "tracing")]
mod trace;
#[cfg(not(feature = "tracing"))]
#[path = "trace_off.rs"]
mod trace;
mod vocabulary;
mod wait_queue;

pub use classify::{RateLimitSnapshot, Verdict};
pub use dialect::Dialect;
pub use event::QuotaEvent;
pub use limit::{ConcurrencyLimit, ConcurrencyLimitLayer, LimitHandle, ReleaseAt};
pub use quota::{PacingConfig, Quotas};
pub use request::{Cost, Deadline, NoRetry, Priority, QuotaKey, ResendCount, pool};
pub use response::body::ResponseBody;
pub use response::buffer;
pub use response::buffer::{BufferBodyLayer, BufferedBody};
pub use response::rejection::{LocalRejection, RejectReason};
pub use retry::clone_body::{ByClone, CloneBody, CloneWith, NoClone};
pub use retry::{RetryInfo, RetryOn, RetryOn429, RetryOn429Layer, StopReason, TokenEstimator};
