//! The layers of [`tower_429`] around a `reqwest` client, and inside `reqwest-middleware`.
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};
//! use tower_429_reqwest::{Body, FromReqwest, ToReqwest};
//!
//! # async fn run() -> Result<(), reqwest::Error> {
//! let http = reqwest::Client::new();
//! let client = ToReqwest::new(
//!     ServiceBuilder::new()
//!         .layer(RetryOn429Layer::new().clone_body(Body::try_clone))
//!         .layer(ConcurrencyLimitLayer::new(32))
//!         .service(FromReqwest::new(http.clone())),
//! );
//!
//! let request = http.post("https://api.openai.com/v1/chat/completions").body("{}").build()?;
//! let response = client.execute(request).await?;
//! # let _ = response;
//! # Ok(())
//! # }
//! ```
//!
//! | you have | use |
//! |---|---|
//! | a [`reqwest::Client`] or a `ClientWithMiddleware` | [`FromReqwest`]: it makes the client a service of [`http::Request`] |
//! | a stack of layers around that service | [`ToReqwest`]: it gives the stack reqwest's request and response types |
//! | a `reqwest_middleware::ClientBuilder` | [`TowerMiddleware`]: `.with(TowerMiddleware::new(layers))` |
//!
//! # What stays the same
//!
//! * The response keeps its URL after redirects, and its extensions. [`RetryInfo`](tower_429::RetryInfo) is in
//!   `response.extensions()`.
//! * Errors of the inner client pass through unchanged.
//! * A timeout of a request ([`reqwest::RequestBuilder::timeout`]) applies to each attempt separately. It does not include
//!   the waits between attempts. To bound the whole call, use a [`Deadline`](tower_429::Deadline) or a timeout layer above.
//! * A copy of a buffered body shares its bytes. A streaming body cannot be copied, so it is sent once and its 429 is
//!   returned.
//!
//! # One retry loop
//!
//! Add no other retry middleware to these layers, because the numbers of attempts multiply. Leave reqwest's own retries at
//! their default: they repeat only requests that an HTTP/2 server has not processed. Do not put a limit into
//! `reqwest::ClientBuilder::connector_layer`, because it wraps connections and not calls.
//!
//! # Features
//!
//! `middleware` (default) adds [`TowerMiddleware`] and the dependency on `reqwest-middleware`. `FromReqwest` around a
//! `ClientWithMiddleware` needs no feature.

mod body;
mod from_reqwest;
#[cfg(feature = "middleware")]
mod middleware;
mod to_reqwest;

pub use body::Body;
pub use from_reqwest::FromReqwest;
#[cfg(feature = "middleware")]
pub use middleware::{NextService, TowerMiddleware};
pub use to_reqwest::{ToReqwest, into_reqwest};
