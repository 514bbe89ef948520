//! The layers from the outside, in virtual time.

mod support_limit;

mod limit;
mod room;
mod runtimes;
mod slots;
mod stack;
