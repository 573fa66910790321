//! The console at `/console`: pages for people, with the same rules and store calls as REST.
//!
//! Each page or flow has a file. A page is a template in `control-plane/templates`, checked at compile time; all of
//! them work without JavaScript. See `docs/decisions/console.md`.

mod admin_tokens;
mod assets;
mod audit;
mod display;
mod edge_tokens;
mod edges;
mod enforcement;
mod form;
mod headers;
mod home;
mod identify;
mod keys;
mod page;
mod problems;
mod query;
mod router;
mod secret;
mod session;
mod sign_in;
mod workspaces;

pub(crate) use router::router;
