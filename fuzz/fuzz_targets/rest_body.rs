//! Any bytes as a REST body: each field is accepted, or refused by its name.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| latchkey::api::fuzzing::body(bytes));
