//! `latchkey check-config` on what `latchkey envoy-config` prints: each edit that opens a door is refused, and a real Envoy shows the door.

mod accepted;
mod chains;
mod doors;
mod guards;
mod listeners;
mod printed;
mod refused;
mod routes;
