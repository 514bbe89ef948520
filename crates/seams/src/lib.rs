//! tower-429 around clients that need no adapter: compiled and run, in `tests/`; nothing is exported here.
