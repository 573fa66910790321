//! The proxy-wasm host of an edge: Envoy's callbacks and host calls, for the `edge` crate, which decides.
//!
//! `plugin.rs` routes Envoy's callbacks, `vm.rs` has the state that all configurations of a worker share, and `host.rs`
//! is the only file that calls Envoy.

#[cfg(all(feature = "faults", not(test)))]
mod faults;
#[cfg(not(test))]
mod host;
#[cfg(not(test))]
mod plugin;
#[cfg(not(test))]
mod vm;
