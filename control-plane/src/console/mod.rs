//! The console at `/console`: pages for people, by the same rules and the same store calls as REST.
//!
//! Each page or flow has a file. A page is a template of `control-plane/templates`, checked when it is compiled; all of them
//! can be read without JavaScript. See `docs/decisions/console.md`.

mod admin_tokens;
mod assets;
mod audit;
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
mod words;
mod workspaces;

pub(crate) use router::router;
