//! The stacks of compose.yaml under load, while their parts are disconnected, killed, replaced and restarted.
//!
//! scripts/test-compose starts each stack and runs its module. Without a Docker engine the tests are ignored.

mod load;
mod one_control_plane;
mod replicas;
mod stack;
