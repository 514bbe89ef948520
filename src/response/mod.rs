//! Response types: the response body, local rejections, and errors inside bodies.

pub(crate) mod body;
pub mod buffer;
pub(crate) mod error_reply;
pub(crate) mod rejection;
pub(crate) mod stream_errors;
