//! An in-process, OpenAI-like HTTP server on tokio time, for tests of clients that handle rate limits.
//!
//! A [`Provider`] is a [`Service`](tower_service::Service) of HTTP requests. It enforces the limits of an
//! LLM API: requests and tokens per minute, calls at once, and a quota. It throttles with status 429 and
//! the messages and headers of such an API, and it counts the calls.
//!
//! It opens no socket and spawns no task. It uses tokio's clock only, so minutes of rate limiting take no
//! time under a paused clock and give the same result on each run. Random values come from a
//! [seed](Builder::seed).
//!
//! ```
//! use http::{Request, StatusCode};
//! use tower_429_testing::{Limit, Provider};
//! use tower_service::Service;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let provider = Provider::builder()
//!     .requests(Limit::per_minute(500).capacity(1))
//!     .build();
//! let mut client = provider.clone(); // or a middleware around it
//! let call = || Request::new(r#"{"model":"gpt-4o"}"#.to_owned());
//!
//! let Ok(first) = client.call(call()).await;
//! assert_eq!(first.status(), StatusCode::OK);
//! let Ok(second) = client.call(call()).await;
//! assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
//! assert_eq!(second.headers()["retry-after-ms"], "120");
//!
//! tokio::time::sleep(provider.wait_for(0.0)).await;
//! let Ok(third) = client.call(call()).await;
//! assert_eq!(third.status(), StatusCode::OK);
//! assert_eq!((provider.seen().accepted, provider.seen().throttled()), (2, 1));
//! # }
//! ```
//!
//! A paused clock needs tokio's `test-util` feature and `start_paused = true`.
//!
//! # The steps of a call
//!
//! 1. The provider reads the body to its end. It answers a body longer than [`MAX_BODY_BYTES`] with
//!    status 413, and a body that fails with 400. It accepts any content. From a JSON body it reads
//!    `model`, `stream`, and `max_tokens` or `max_completion_tokens`.
//! 2. The call costs one request, and tokens: a quarter of its characters plus `max_tokens`. The request
//!    headers [`x-testing-tokens`](TOKENS_HEADER), [`x-testing-output-tokens`](OUTPUT_TOKENS_HEADER) and
//!    [`x-testing-service-ms`](SERVICE_MS_HEADER) override cost, usage and service time of one call.
//! 3. The call arrives after the [latency](Latency) of the request. The provider then checks, in this
//!    order: the quota, the number of calls in flight, the limits on requests and tokens, and the hidden
//!    limit.
//! 4. A throttled call pays its [charge](Charge), and the 429 travels back. An accepted call pays its
//!    request and tokens, and is in flight for the [service time](ServiceTime). It leaves at the end of
//!    that time, even if the client has not read the response, or when the client drops the call.
//! 5. The headers of the response report the limits after this step.
//!
//! # On a socket
//!
//! A provider is always ready, has no errors and is `Clone + Send + Sync`. axum serves it with
//! `Router::new().fallback_service(provider)`, and hyper with hyper-util's `TowerToHyperService`.

mod account;
mod answer;
mod body;
mod bucket;
mod builder;
mod facts;
mod future;
mod go;
mod knobs;
mod limit;
mod provider;
mod seen;
mod state;
mod time;
mod timing;
mod verdict;
mod wording;

pub use account::CONCURRENCY_HINT;
pub use body::ProviderBody;
pub use builder::{Builder, DEFAULT_EVENTS, MOST_FOREIGN_PER_SECOND};
pub use facts::{OUTPUT_TOKENS_HEADER, SERVICE_MS_HEADER, TOKENS_HEADER};
pub use future::{MAX_BODY_BYTES, ProviderFuture};
pub use go::go_duration;
pub use knobs::{Answer, Charge, HintUnit, Hints, RateHeaders, Wording};
pub use limit::Limit;
pub use provider::Provider;
pub use seen::{MAX_BODIES_SEEN, Seen};
pub use time::LONGEST_WAIT;
pub use timing::{Latency, ServiceTime};
