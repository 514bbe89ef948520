//! All tests that need no socket, in one binary: one file a noun.

mod inside;
mod report;
