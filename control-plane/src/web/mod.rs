//! What `api`, `console` and `feed` share of HTTP: error responses, limits of clients, and the bodies of requests.

pub mod auth_failures;
pub(crate) mod bearer;
pub(crate) mod connection_slots;
pub mod import_limiter;
pub(crate) mod layers;
pub(crate) mod pace;
pub mod problem;
pub mod spool;
