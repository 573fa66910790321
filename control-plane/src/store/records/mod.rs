//! The objects of the store, each with its functions and their SQL.

pub(super) mod admin_tokens;
pub(super) mod edge_tokens;
pub(super) mod identify;
pub(super) mod import;
pub(super) mod instances;
pub(super) mod keys;
pub(super) mod list;
pub(super) mod matching;
pub(super) mod names;
pub(super) mod roles;
pub(super) mod secrets;
pub(super) mod sessions;
pub(super) mod sizes;
pub(super) mod tokens;
pub(super) mod usage;
pub(super) mod usage_delta;
pub(super) mod usage_rounds;
pub(super) mod workspaces;
