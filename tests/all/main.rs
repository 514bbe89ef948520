//! The layers from the outside, in virtual time.

mod support_limit;

mod runtimes;
mod slots;
