//! What holds for whatever comes: properties, tried with random values. Natively only.

mod damage;
mod records;
mod routes;
mod tables;
mod texts;

/// A quarter of the usual number where one case is much work.
fn fewer_cases() -> proptest::test_runner::Config {
    proptest::test_runner::Config { cases: 64, failure_persistence: None, ..Default::default() }
}
