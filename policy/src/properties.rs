//! Property tests with random values. Natively only.

#![cfg(not(target_arch = "wasm32"))]

mod damage;
mod records;
mod routes;
mod tables;
mod texts;

use proptest::test_runner::Config;

/// The usual number of cases, or fewer where a case is expensive. Failures are in the test's output, not in a file.
fn cases(cost: CaseCost) -> Config {
    let cases = match cost {
        CaseCost::Low => Config::default().cases,
        CaseCost::High => Config::default().cases.div_ceil(4),
    };
    Config { cases, failure_persistence: None, ..Config::default() }
}

enum CaseCost {
    Low,
    High,
}
