//! The two databases behind one interface: connections, statements, schemas and locks.

pub(super) mod connection;
pub(super) mod database;
mod dialect;
pub(super) mod domain;
pub(super) mod file_watch;
pub(super) mod lock;
pub(super) mod postgres;

pub(super) mod sql;
pub(super) mod sqlite_schema;
