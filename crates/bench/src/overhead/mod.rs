//! What a call costs that meets no limit: the services under comparison, and how they are measured.

pub mod body;
pub mod call;
pub mod measure;
pub mod room;
