//! An OpenAI-like HTTP server in the process, on tokio time, for clients that meet rate limits.
//!
//! A [`Provider`] is a [`Service`](tower_service::Service) of HTTP requests that limits them as an LLM
//! API does: requests and tokens per minute in buckets, a number of calls at once, a quota that ends.
//! It throttles with status 429, in the words and headers of such an API, and keeps count. It is meant
//! for tests, simulations and examples of clients that retry, pace themselves or wait.
//!
//! It has no sockets and no tasks of its own, and all its time is tokio's: under a paused clock,
//! minutes of rate limiting pass in no time and come out the same each time. What is random comes
//! from a [seed](Builder::seed).
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
//! (A paused clock needs tokio's `test-util` feature and `start_paused = true`.)
//!
//! # What happens to a call
//!
//! 1. Its body is read: to the end, at most [`MAX_BODY_BYTES`]. A longer one is answered with status
//!    413, one that fails with 400. Whatever is in it, it is served; of JSON, `model`, `max_tokens` or
//!    `max_completion_tokens`, and `stream` count.
//! 2. It costs one request, and as many tokens as a quarter of its characters plus `max_tokens`. The
//!    request headers [`x-testing-tokens`](TOKENS_HEADER),
//!    [`x-testing-output-tokens`](OUTPUT_TOKENS_HEADER) and
//!    [`x-testing-service-ms`](SERVICE_MS_HEADER) override price, use and time of a single call.
//! 3. After the [latency](Latency) of the request it arrives. There the quota, the number of calls in
//!    flight, the limits on requests and tokens and the hidden limit are asked, in this order.
//! 4. Throttled: a [charge](Charge) for the attempt, and the 429 travels back. Accepted: request and
//!    tokens are taken, and a slot for the [service time](ServiceTime). The slot is free again at the
//!    end of that time, whether or not the client has read the answer, or when the client drops the
//!    call.
//! 5. Headers tell the limits as they are right after that.
//!
//! # On a socket
//!
//! A provider is always ready, cannot fail and is `Clone + Send + Sync`, so axum serves it as
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
