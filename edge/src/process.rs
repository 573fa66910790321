//! Replication between the workers of one Envoy: their membership, and what the leader publishes for the others.
//!
//! All of it is in Envoy's shared data, under keys that belong to one source. Values there may be damaged or old: they
//! are validated like responses of the control plane.

pub mod follower;
pub mod head;
pub mod membership;
pub mod publisher;
pub mod shared_store;
mod time_slice;

#[cfg(test)]
mod tests;
