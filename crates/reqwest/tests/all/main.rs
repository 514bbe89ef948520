//! reqwest through the layers, over real loopback HTTP. Nothing here measures a clock.

mod bad_input;
#[cfg(feature = "middleware")]
mod middleware;
mod roundtrip;
mod server;
