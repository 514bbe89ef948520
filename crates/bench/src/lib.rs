//! What the benchmarks share: what a call costs, in process and over HTTP; the scenarios of a server and its jobs, and the schemes that run them in
//! virtual time.

pub mod charts;
pub mod http_cost;
pub mod oracle;
pub mod overhead;
pub mod page;
pub mod request;
pub mod results;
pub mod run;
pub mod scenario;
pub mod schemes;
pub mod situations;
pub mod table;
pub mod wire;
