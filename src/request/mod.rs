//! Request types: the key, the cost, the deadline and the priority of a call.

pub(crate) mod body;
mod cost;
mod credentials;
mod deadline;
pub(crate) mod host;
mod key;
mod path;
pub mod pool;
mod priority;

pub use cost::Cost;
pub(crate) use cost::TOKENS_MAX;
pub use deadline::Deadline;
pub use key::QuotaKey;
pub use priority::Priority;
pub(crate) use priority::next_number;

/// Disables retries for a request when inserted into its extensions.
///
/// The call is still paced, and it waits for cooldowns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoRetry;

/// The number of times that a request has been sent before. A retry has it in its extensions; a first attempt does not.
///
/// It corresponds to OpenTelemetry's `http.request.resend_count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResendCount(pub u32);
