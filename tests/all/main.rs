//! All tests that need no socket, in one binary: one file a noun.

mod support_limit;
mod support_retry;

mod account;
mod beside_towers;
mod bodies;
mod buffer;
mod compose;
mod contract;
mod cooldown;
mod costs;
mod fuzzed;
mod gate;
mod hints;
mod inside;
mod invariants;
mod keys;
mod learning;
mod limit;
mod limit_keys;
mod panics;
mod properties;
mod registry;
mod release;
mod replay;
mod report;
mod retry;
mod room;
mod runtimes;
mod slots;
mod stack;
