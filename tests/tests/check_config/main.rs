//! `latchkey check-config` refuses each edit of the printed configuration that lets requests bypass the filter.
//!
//! A real Envoy shows that each bypass exists.

mod accepted;
mod bypasses;
mod chains;
mod guards;
mod listeners;
mod printed_config;
mod refused;
mod routes;
