//! What the tests of several crates share.

pub mod databases;
pub mod digest;
pub mod server;
