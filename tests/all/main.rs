//! The layers from the outside, in virtual time.

mod support_limit;

mod buffer;
mod compose;
mod limit;
mod properties;
mod room;
mod runtimes;
mod slots;
mod stack;
