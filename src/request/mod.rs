//! Who shares a limit with this request, and what does it cost?

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

/// In a request's extensions: this call is paced and cooled down, but never sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoRetry;

/// How often this request has been sent before, in the extensions of a request that is sent again.
///
/// This is OpenTelemetry's `http.request.resend_count`; a first attempt carries none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResendCount(pub u32);
