//! What each order of layers does: the claims of `docs/stack.md`, one test each, in virtual time.

mod auth;
mod body_timeout;
mod decompression;
mod limit;
mod redirect;
mod server;
mod timeout;
mod trace;
