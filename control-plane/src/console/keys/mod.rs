//! Keys: how pages show one, with a file for each page or flow.

mod allowlist_field;
mod chart;
pub(super) mod delete;
pub(super) mod edit;
mod fields;
pub(super) mod list;
pub(super) mod new;
pub(super) mod rotate;
pub(super) mod rotation;
pub(super) mod show;
pub(super) mod state;
mod view;
