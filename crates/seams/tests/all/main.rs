//! Clients that need no adapter: each is throttled twice, over real loopback HTTP, and then answered.

mod aws_smithy;
mod hyper_util;
mod kube;
mod octocrab;
mod rig;
mod server;
mod tower_http_client;
