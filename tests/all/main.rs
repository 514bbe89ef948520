//! Tests of the two layers from outside, one file a noun, in virtual time.

mod bodies;
mod contract;
mod cooldown;
mod costs;
mod gate;
mod hints;
mod invariants;
mod keys;
mod replay;
mod retry;
mod support_retry;
