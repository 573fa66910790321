//! Maintenance: removal by age, backups, restores, and copies to the other engine.

pub(super) mod backup;
pub(super) mod copy;
pub(super) mod restore;
pub(super) mod sweep;
