//! The README's examples, compiled by `cargo test`.
#![doc = include_str!("../README.md")]

#[doc = include_str!("../docs/keys.md")]
mod keys {}
