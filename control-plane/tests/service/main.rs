//! The control plane as clients see it: requests through the real router, on a real SQLite file.
#![cfg(test)]

mod admin_tokens;
mod at_rest;
mod audit;
mod authority;
mod clean_up;
mod cli;
mod console;
mod console_forms;
mod console_pages;
mod console_sessions;
mod crash;
mod edge_tokens;
mod enforced;
mod feed;
mod harness;
mod identify;
mod import;
mod keys;
mod list;
mod log;
mod logged;
mod metrics;
mod openapi;
mod refusals;
mod restart;
mod restore;
mod rotation;
mod schema;
mod start;
mod tls;
mod usage;
mod visitor;
mod workspaces;
