//! All tests that need no socket, in one binary: one file a noun.

mod support_limit;

mod buffer;
mod compose;
mod inside;
mod limit;
mod properties;
mod report;
mod room;
mod runtimes;
mod slots;
mod stack;
