//! The history: changes in their order, the audit log, and what the feed reads.

pub(super) mod audit;
pub(super) mod audit_list;
pub(super) mod audit_verify;
pub(super) mod changes;
pub(super) mod edge_bytes;
pub(super) mod edge_token_index;
pub(super) mod feed;
pub(super) mod id_catalogue;
pub(super) mod key_records;
pub(super) mod once;
pub(super) mod readiness;
pub(super) mod retention;
pub(super) mod writer;
