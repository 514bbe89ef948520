//! The layers of [`tower_429`] around any `reqwest` client, and inside `reqwest-middleware`.
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
//! | what you have | what you need |
//! |---|---|
//! | a [`reqwest::Client`], or a `ClientWithMiddleware` | [`FromReqwest`]: it becomes a service of [`http::Request`], which every layer fits |
//! | a stack of layers around that | [`ToReqwest`]: [`reqwest::Request`] in, [`reqwest::Response`] out |
//! | a `reqwest_middleware::ClientBuilder` | [`TowerMiddleware`]: `.with(TowerMiddleware::new(layers))` |
//!
//! # What is kept
//!
//! * The response's URL, after redirects, and its extensions: [`RetryInfo`](tower_429::RetryInfo) is in
//!   `response.extensions()`.
//! * The error type of the inner client, and its errors as they are.
//! * A timeout set on a request ([`reqwest::RequestBuilder::timeout`]). It counts for each attempt anew, waits between
//!   attempts not included: bound the whole call with a [`Deadline`](tower_429::Deadline) or a timeout layer above.
//! * What a buffered body holds: a copy for another attempt shares its bytes. A streaming body cannot be copied: it is
//!   sent once, whole, and a 429 of it is handed back.
//!
//! # Not two retry loops
//!
//! Leave reqwest's own retries as they are by default (they repeat only what HTTP/2 servers have not processed), and put
//! no other retry middleware beside these layers: their numbers of attempts multiply. `reqwest::ClientBuilder::connector_layer`
//! is no place for a limit: it wraps the making of connections, not calls.
//!
//! # Features
//!
//! `middleware` (default): [`TowerMiddleware`], with `reqwest-middleware` as a dependency. `FromReqwest` around a
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
