//! What response bodies hold: errors within successes, and the words of an error that callers match on.

pub(crate) mod body;
pub mod buffer;
pub(crate) mod error_reply;
pub(crate) mod rejection;
pub(crate) mod stream_errors;
