//! Any bytes as a body of REST: each field is taken, or refused by its name.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| latchkey::api::fuzzing::body(bytes));
