//! The layers of [`tower_429`] as the HTTP service of an `async-openai` client.
//!
//! ```
//! use async_openai::{Client, config::OpenAIConfig};
//! use tower_429::RetryOn429Layer;
//! use tower_429_async_openai::HttpService;
//!
//! let client = Client::with_config(OpenAIConfig::default())
//!     .with_http_service(HttpService::new(RetryOn429Layer::new()));
//! # let _ = client;
//! ```
//!
//! With a concurrency limit and your own `reqwest::Client`:
//!
//! ```
//! # use async_openai::{Client, config::OpenAIConfig};
//! # use tower_429::RetryOn429Layer;
//! # use tower_429_async_openai::HttpService;
//! use tower::ServiceBuilder;
//! use tower_429::ConcurrencyLimitLayer;
//!
//! let layers = ServiceBuilder::new().layer(RetryOn429Layer::new()).layer(ConcurrencyLimitLayer::new(32));
//! let service = HttpService::with_client(reqwest::Client::new(), layers);
//! # let _ = Client::with_config(OpenAIConfig::default()).with_http_service(service);
//! ```
//!
//! # Differences for the caller
//!
//! * `with_http_service` replaces the client's own retries (`OpenAIRetryLayer`). Do not add that layer again, because the
//!   attempts multiply.
//! * The layers read the delay of a 429 from `retry-after-ms`, dates, the message and text that is not JSON. A retry is never
//!   earlier than this delay, and all calls of a key share one cooldown.
//! * A stream holds its permit until it ends or is dropped. The permit of an unread body is lent after 1 s.
//! * Uploads (multipart forms) are retried. async-openai builds them again for each attempt.
//! * Errors are async-openai's own. Its `ApiError` has no headers; [`HttpService::keep_error_responses`] keeps them.

mod error_response;
mod replay;
mod service;
mod transport;

pub use error_response::ErrorResponse;
pub use replay::Replay;
pub use service::HttpService;
pub use transport::Transport;
