//! Replication between the workers of one Envoy: their membership, and what the leader hands on to the others.
//!
//! All of it is in Envoy's shared data, under keys that belong to one source. Values there may be damaged or old: they are
//! checked as an answer of the control plane is.

pub mod follower;
pub mod head;
pub mod membership;
pub mod publisher;
pub mod shared_store;
mod turn;

#[cfg(test)]
mod tests;
