//! What holds for whatever comes: properties, tried with random values. Natively only.

#![cfg(not(target_arch = "wasm32"))]

mod damage;
mod records;
mod routes;
mod tables;
mod texts;

use proptest::test_runner::Config;

/// The usual number of cases; fewer where one is much work. What failed is named in the test's output, not kept in a file.
fn cases(work: Work) -> Config {
    let cases = match work {
        Work::Little => Config::default().cases,
        Work::Much => Config::default().cases.div_ceil(4),
    };
    Config { cases, failure_persistence: None, ..Config::default() }
}

enum Work {
    Little,
    Much,
}
