//! The workers of one Envoy that share one subscriber: who is there, who leads, and what the leader hands on.
//!
//! All of it stands in Envoy's shared data, under names that belong to one source of keys. Whatever is read there may be
//! damaged or old: it is checked as an answer of the control plane is.

pub mod follower;
pub mod head;
pub mod publisher;
pub mod roster;
pub mod shelf;
mod turn;

#[cfg(test)]
mod tests;
