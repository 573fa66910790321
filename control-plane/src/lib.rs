//! Latchkey's control plane: REST and a console for admins, the feed for edges, SQLite underneath.
//!
//! `api`, `console` and `feed` know HTTP, share `web`, and call the public functions of `store`, which knows SQL and no
//! HTTP; all of them use `base`. `serve` puts them together, and `cli` is the command line. No two of these folders import
//! each other. This is a library so that tests and benchmarks use the same router as the binary.

pub mod api;
pub mod base;
pub mod cli;
mod console;
pub mod edges;
pub mod feed;
pub mod serve;
pub mod store;
mod usage;
pub mod web;
