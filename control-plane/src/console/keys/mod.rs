//! Keys: how a page shows one, and its pages and flows, a file each.

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
