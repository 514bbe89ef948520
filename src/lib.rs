//! Rate-limit handling for any tower HTTP client of OpenAI-style APIs: no request is lost to a 429 that waiting would
//! cure, none waits for one that waiting cannot cure, and almost none is sent only to be throttled.
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
//!     .layer(RetryOn429Layer::new()) // classify, pace, cool down, retry: no number is needed
//!     .layer(ConcurrencyLimitLayer::new(32)) // a cap of your own, if you want one
//!     .service(http_client);
//! # fn is_service<S: tower::Service<http::Request<Full<Bytes>>>>(_: S) {}
//! # is_service(client);
//! ```
//!
//! A request meets five nouns, in this order:
//!
//! | noun | question | where |
//! |---|---|---|
//! | **call** | who shares a limit with this request, and what does it cost? | [`QuotaKey`], [`Cost`], [`Priority`], [`Deadline`] |
//! | **quota** | may this key send now? | [`quota`] |
//! | **permit** | leave now, and one slot until the response *body* ends | [`quota`], [`limit`] |
//! | **verdict** | what did the server say? | [`classify`] |
//! | **backoff** | again or not, and after how long when nobody told us? | [`retry`] |
//!
//! # The stack
//!
//! ```text
//! request ─▶ RetryOn429 ─────────────▶ ConcurrencyLimit ─▶ [decompression] ─▶ [attempt timeout] ─▶ client
//!              │ key, cost                │ n at once, a slot to the body's end
//!              │ quota: one queue a key ──┤ looks at the gate again if the call had to queue here
//!              │ verdict ─▶ quota learns  │
//!              └ again, or hand back ◀────┘
//! ```
//!
//! Either layer works without the other. [`RetryOn429Layer`] needs an inner service that is `Clone` and a body that can be
//! copied ([`CloneBody`]); neither layer changes the request's body type or the error type, and nothing is boxed for a call
//! that goes at once and succeeds. If a stack does not compile, `.check_service::<_, http::Request<B>, _, _>()` on the
//! `ServiceBuilder` makes the compiler say which bound is missing.

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
