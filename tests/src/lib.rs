//! End-to-end tests on the real parts.
