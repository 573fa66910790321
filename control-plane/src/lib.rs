//! Latchkey's control plane: REST and a console for admins, the feed for edges, SQLite underneath.
//!
//! `operations` is what admins do, apart from HTTP; `api` and `console` each give it a form. These two and `feed` know
//! HTTP and share `web`. `store` knows SQL and no HTTP; all of them use `base`. `serve` puts them together, and `cli` is the command line. No two of these folders import
//! each other. This is a library so that tests and benchmarks use the same router as the binary.

pub mod api;
pub mod base;
pub mod cli;
mod console;
pub mod edges;
pub mod feed;
pub mod operations;
pub mod serve;
pub mod store;
mod usage;
pub mod web;
