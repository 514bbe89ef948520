//! The layers from the outside, in virtual time.

mod support_limit;

mod beside_towers;
mod buffer;
mod compose;
mod limit;
mod limit_keys;
mod properties;
mod room;
mod runtimes;
mod slots;
mod stack;
