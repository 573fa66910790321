//! The console in a real browser, with scripts and without, on a real control plane and a real Envoy.

mod accessible;
mod keys;
mod sign_in;
mod tokens;
