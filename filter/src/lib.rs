//! The proxy-wasm filter: decides each request in Envoy, by a table that it keeps up to date itself.
//!
//! `plugin.rs` hands Envoy's callbacks on, `request.rs` decides a request, `subscription.rs` keeps the table, `vm.rs` holds
//! what all configurations of a worker share, and `host.rs` is the only file that calls Envoy.

pub mod answer;
pub mod credential;
pub mod edge;
#[cfg(test)]
mod fake_control_plane;
#[cfg(test)]
mod fake_envoy;
pub mod host;
pub mod metadata;
pub mod metrics;
#[cfg(not(test))]
mod plugin;
pub mod request;
pub mod subscription;
pub mod vm;
