//! The edge, independent of its host: it decides requests by a table of keys that it keeps up to date.
//!
//! `request.rs` decides a request. `source.rs` keeps the keys up to date: from the control plane through
//! `subscription.rs`, from the other workers through `process.rs`. `host.rs` is the trait that a host implements.

#![warn(missing_docs)]

pub mod acknowledgement;
pub mod client_address;
pub mod credential;
pub mod edge;
#[cfg(test)]
mod fake_control_plane;
#[cfg(test)]
mod fake_envoy;
pub mod host;
pub mod keys;
pub mod metadata;
pub mod metrics;
pub mod process;
pub mod request;
pub mod response;
pub mod source;
pub mod source_name;
pub mod subscription;
pub mod templates;
pub mod trailers;
pub mod usage;
