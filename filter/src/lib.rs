//! The proxy-wasm filter: decides each request in Envoy, by a table that it keeps up to date itself.
//!
//! `plugin.rs` hands Envoy's callbacks on, `request.rs` decides a request, `source.rs` keeps the keys up to date: from the
//! control plane by `subscription.rs`, from the other workers by `process.rs`. `vm.rs` holds what all configurations of a
//! worker share, and `host.rs` is the only file that calls Envoy.

pub mod acknowledgement;
pub mod answer;
pub mod client_address;
pub mod credential;
pub mod edge;
#[cfg(test)]
mod fake_control_plane;
#[cfg(test)]
mod fake_envoy;
#[cfg(all(feature = "faults", not(test)))]
mod faults;
pub mod host;
pub mod keys;
pub mod metadata;
pub mod metrics;
#[cfg(not(test))]
mod plugin;
pub mod process;
pub mod request;
pub mod source;
pub mod subscription;
pub mod templates;
pub mod trailers;
pub mod usage;
pub mod vm;
