//! Pure rules of Latchkey, used by the filter and by the control plane.
//!
//! Nothing here reads a clock, draws a random number, does I/O or keeps global state: time and data come as arguments.

#![warn(missing_docs)]

pub mod allowlist;
pub mod config;
pub mod credential_source;
pub mod decide;
pub mod deny_reason;
pub mod digest;
pub mod environment;
#[cfg(test)]
mod fixtures;
pub mod id;
pub mod key_text;
pub mod live_table;
pub mod path;
pub mod position;
#[cfg(test)]
mod properties;
pub mod protocol;
pub mod route;
pub mod rule;
pub mod scope;
pub mod table;
pub mod time;
pub mod wire;

pub use allowlist::Allowlist;
pub use config::Config;
pub use decide::{Decision, decide};
pub use deny_reason::DenyReason;
pub use digest::Digest;
pub use environment::Environment;
pub use id::{AdminTokenId, EdgeTokenId, Epoch, KeyId, WorkspaceId};
pub use live_table::LiveTable;
pub use position::{ChainHash, Position, Revision};
pub use rule::Rule;
pub use scope::{Level, Scope, Scopes};
pub use table::Table;
pub use time::UnixSeconds;
