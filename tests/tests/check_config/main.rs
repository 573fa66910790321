//! `latchkey check-config` refuses each edit that opens a door in what `latchkey envoy-config` prints.
//!
//! A real Envoy shows that the door is open.

mod accepted;
mod chains;
mod doors;
mod guards;
mod listeners;
mod printed;
mod refused;
mod routes;
