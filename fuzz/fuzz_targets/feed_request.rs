//! Any bytes as what an edge sends: the feed's query, an acknowledgement, a batch of usage.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| latchkey::feed::fuzzing::request(bytes));
