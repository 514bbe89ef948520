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
//! With a limit of your own, and a `reqwest::Client` of your own:
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
//! # What changes for the caller
//!
//! * `with_http_service` replaces the client's own retries (`OpenAIRetryLayer`), so that attempts do not multiply. Do not
//!   add that layer back.
//! * A 429 is judged by everything it says: `retry-after-ms`, dates, the message, text that is no JSON. Waits are
//!   never shorter than asked, and all calls of a key share them.
//! * A stream holds its permit until it ends or is dropped.
//! * Uploads (multipart forms) are retried, too: async-openai builds them anew for each attempt.
//! * Errors stay async-openai's own. Its `ApiError` has no headers; [`HttpService::keep_error_responses`] gives them.

mod error_response;
mod replay;
mod service;
mod transport;

pub use error_response::ErrorResponse;
pub use replay::Replay;
pub use service::HttpService;
pub use transport::Transport;
