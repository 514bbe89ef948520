//! What the benchmarks share: the scenarios of a server and its jobs, and the schemes that run them in virtual time.

pub mod overhead;
pub mod run;
pub mod scenario;
