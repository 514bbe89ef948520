//! The README's examples, compiled by `cargo test`.
#![doc = include_str!("../README.md")]
