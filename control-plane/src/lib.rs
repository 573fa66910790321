//! Latchkey's control plane: REST and a console for admins, the feed for edges, SQLite underneath.
//!
//! `api`, `console` and `feed` know HTTP and the store's door, `store` knows SQL and no HTTP. A library so that its tests and
//! benchmarks go through the same router as the binary.

pub mod api;
mod bearer;
pub mod cli;
pub mod clock;
pub mod config;
mod console;
pub mod edges;
pub mod entropy;
pub mod feed;
pub mod guesses;
pub mod imports;
mod instant;
mod lossy;
pub mod metrics;
mod pace;
mod places;
mod private_file;
pub mod problem;
pub mod public_url;
pub mod secret;
pub mod serve;
pub mod spool;
pub mod store;
pub mod tokens;
mod usage;
