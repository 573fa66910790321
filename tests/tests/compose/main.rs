//! The stacks of compose.yaml under load, while their parts are cut off, killed, replaced and restarted.
//!
//! scripts/test-compose starts each stack and runs its module; they say nothing where no Docker engine runs.

mod load;
mod one_control_plane;
mod replicas;
mod stack;
