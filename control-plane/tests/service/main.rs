//! The control plane as clients see it: requests through the real router, on a real SQLite file.
#![cfg(test)]

mod at_rest;
mod feed;
mod harness;
mod keys;
mod list;
mod log;
mod refusals;
mod restart;
mod rotation;
mod start;
mod workspaces;
