//! Latchkey's control plane: REST and a console for admins, the feed for edges, SQLite underneath.
//!
//! `api`, `console` and `feed` know HTTP and call the store's public functions; `store` knows SQL and no HTTP. This is
//! a library so that tests and benchmarks use the same router as the binary.

pub mod api;
pub mod auth_failures;
mod bearer;
pub mod cli;
pub mod clock;
pub mod config;
mod connection_slots;
mod console;
pub mod edges;
pub mod entropy;
pub mod feed;
pub mod imports;
mod instant;
mod lossy_log;
pub mod metrics;
mod pace;
mod private_file;
pub mod problem;
pub mod public_url;
pub mod secret;
pub mod serve;
pub mod spool;
pub mod store;
pub mod tokens;
mod usage;
