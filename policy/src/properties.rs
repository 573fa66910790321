//! Property tests with random values. Natively only.

#![cfg(not(target_arch = "wasm32"))]

mod damage;
mod records;
mod routes;
mod tables;
mod texts;

use proptest::test_runner::Config;

/// The usual number of cases, or fewer where a case is expensive. Failures are in the test's output, not in a file.
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
