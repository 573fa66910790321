//! A model of the whole system: the real control plane and the real filter in one process and in simulated time, under
//! random changes, losses and restarts. After each step it checks the invariants.
//!
//! `steps.rs` defines what may happen, `world.rs` carries it out, `oracle.rs` knows what is allowed, and
//! `invariants.rs` compares. Only Envoy, the network and the clocks are not real: `envoy.rs`, `network.rs` and
//! `time.rs`.
#![cfg(test)]

mod admin;
mod control_plane;
mod envoy;
mod invariants;
mod network;
mod oracle;
mod schema;
mod steps;
mod time;
mod vm;
mod world;

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use test_support::server;

use crate::envoy::FeedSharing;
use crate::steps::{Step, steps};
use crate::world::{Setup, World};

/// Sequences of all tests together, unless `MODEL_CASES` is set.
const CASES: u32 = 2_000;

/// With `MODEL_CASES`, how many sequences share their control planes: starting them costs as much as a sequence.
const SEQUENCES_PER_WORLD: u32 = 50;

/// How often a long run reports its progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(60);

/// The database: a file for a single control plane, or a PostgreSQL server for two.
enum Backend {
    File,
    PostgreSql,
}

/// Runs this percentage of the sequences, with Envoys of these kinds, and prints the shortest one that fails.
fn run_model(percent: u32, kinds: &[FeedSharing], backend: Backend) {
    let requested = std::env::var("MODEL_CASES").ok().map(|text| text.parse().expect("MODEL_CASES is a number"));
    let cases = requested.unwrap_or(CASES).div_ceil(100) * percent;
    let runtime = time::Runtime::new();
    let setup = match backend {
        Backend::File => Setup::File(runtime.tokio.block_on(control_plane::template())),
        Backend::PostgreSql => Setup::Server(server::start(&[])),
    };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    // A test tries the same sequences each time; with `MODEL_CASES`, new ones.
    let mut runner = match requested {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let runs = RefCell::new(Runs {
        setup: &setup,
        kinds,
        max_sequences: requested.map_or(1, |_| SEQUENCES_PER_WORLD),
        world: None,
        sequences: 0,
        has_failed: false,
    });
    let (passed, reported_at) = (Cell::new(0_u32), Cell::new(Instant::now()));
    let result = runner.run(&steps(), |steps| {
        runtime.tokio.block_on(runs.borrow_mut().run(&steps)).map_err(TestCaseError::fail)?;
        passed.set(passed.get() + 1);
        if reported_at.get().elapsed() > PROGRESS_EVERY {
            reported_at.set(Instant::now());
            eprintln!("model: {} of {cases} sequences passed, with {}", passed.get(), setup.description(kinds));
        }
        Ok(())
    });
    runtime.tokio.block_on(runs.into_inner().end());
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => panic!("{why}\nafter these steps: {steps:#?}"),
        Err(TestError::Abort(why)) => panic!("no sequence was tried: {why}"),
    }
}

/// Sequences that run one after the other.
struct Runs<'a> {
    setup: &'a Setup,
    kinds: &'a [FeedSharing],
    /// The most sequences that share control planes.
    max_sequences: u32,
    /// The world of the last sequence, if that one passed.
    world: Option<World>,
    /// How many sequences have used `world`.
    sequences: u32,
    /// After a failure each sequence has its own control planes, so that the shortest failing one is found.
    has_failed: bool,
}

impl Runs<'_> {
    /// Runs one sequence. At its end all faults are repaired, and then every worker must reach the head.
    async fn run(&mut self, steps: &[Step]) -> Result<(), String> {
        let mut world = match self.world.take() {
            Some(mut world) => {
                world.reset(self.kinds).await;
                world
            }
            None => {
                self.sequences = 0;
                World::new(self.setup, self.kinds).await
            }
        };
        self.sequences += 1;
        // A panic is a failure, too.
        let had_failed = std::mem::replace(&mut self.has_failed, true);
        let result = run_steps(&mut world, steps).await;
        self.has_failed = had_failed || result.is_err();
        if self.has_failed || self.sequences >= self.max_sequences {
            world.end().await;
        } else {
            self.world = Some(world);
        }
        result.map_err(|why| format!("{why}\nin sequence {} of its control planes", self.sequences))
    }

    async fn end(self) {
        if let Some(world) = self.world {
            world.end().await;
        }
    }
}

async fn run_steps(world: &mut World, steps: &[Step]) -> Result<(), String> {
    for (number, step) in steps.iter().enumerate() {
        world.apply(step).await;
        world.check_invariants().await.map_err(|why| format!("step {number}, {step:?}: {why}"))?;
    }
    world.check_recovery().await.map_err(|why| format!("after all faults were repaired: {why}"))
}

// A sequence with three Envoys takes nearly as long as two sequences with one.

#[test]
fn invariants_hold_for_an_envoy_whose_workers_share_one_subscriber() {
    run_model(40, &[FeedSharing::OneSubscriber], Backend::File);
}

#[test]
fn invariants_hold_for_an_envoy_whose_workers_each_subscribe() {
    run_model(25, &[FeedSharing::EachSubscribes], Backend::File);
}

#[test]
fn invariants_hold_for_an_envoy_whose_workers_are_separate_instances() {
    run_model(25, &[FeedSharing::SeparateInstances], Backend::File);
}

#[test]
fn invariants_hold_for_envoys_of_every_kind() {
    run_model(
        10,
        &[FeedSharing::OneSubscriber, FeedSharing::EachSubscribes, FeedSharing::SeparateInstances],
        Backend::File,
    );
}

/// Runs only where the tests are on PostgreSQL, because it is slow.
#[test]
fn invariants_hold_over_two_control_planes_on_one_postgresql() {
    if !server::is_postgres() {
        return;
    }
    run_model(1, &[FeedSharing::OneSubscriber, FeedSharing::EachSubscribes], Backend::PostgreSql);
}
