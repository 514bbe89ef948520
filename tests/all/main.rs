//! Tests of the two layers from outside, one file a noun, in virtual time.

mod cooldown;
mod hints;
mod retry;
mod support_retry;
