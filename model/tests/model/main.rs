//! A model of the whole system: the real control plane and the real filter in one process and in simulated time, under
//! random changes, losses and restarts. After each step it checks the invariants.
//!
//! `steps.rs` defines what may happen, `world.rs` carries it out, `truth.rs` knows what is allowed, and `held.rs`
//! compares. Only Envoy, the network and the clocks are not real: `envoy.rs`, `network.rs` and `time.rs`.
#![cfg(test)]

mod admin;
mod control_plane;
mod envoy;
mod held;
mod network;
mod schema;
#[path = "../../../control-plane/tests/service/server.rs"]
mod server;
mod steps;
mod time;
mod truth;
mod vm;
mod world;

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::envoy::Kind;
use crate::steps::{Step, steps};
use crate::world::{Begin, World};

/// Sequences of all tests together, unless `MODEL_CASES` is set.
const CASES: u32 = 2_000;

/// With `MODEL_CASES`, how many sequences share their control planes: starting those costs as much as a sequence.
const LIFE: u32 = 50;

/// How often a long run reports its progress.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The database: a file for a single control plane, or a PostgreSQL for two.
enum On {
    AFile,
    AServer,
}

/// Runs this percentage of the sequences, with Envoys of these kinds, and prints the shortest one that fails.
fn hold(percent: u32, kinds: &[Kind], on: On) {
    let asked = std::env::var("MODEL_CASES").ok().map(|text| text.parse().expect("MODEL_CASES is a number"));
    let cases = asked.unwrap_or(CASES).div_ceil(100) * percent;
    let runtime = time::Runtime::new();
    let begin = match on {
        On::AFile => Begin::File(runtime.tokio.block_on(control_plane::template())),
        On::AServer => Begin::Server(server::start(&[])),
    };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    // A test tries the same sequences each time; with `MODEL_CASES`, new ones.
    let mut runner = match asked {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let runs = RefCell::new(Runs {
        begin: &begin,
        kinds,
        life: asked.map_or(1, |_| LIFE),
        left: None,
        lived: 0,
        has_broken: false,
    });
    let (held, told_at) = (Cell::new(0_u32), Cell::new(Instant::now()));
    let broken = runner.run(&steps(), |steps| {
        runtime.tokio.block_on(runs.borrow_mut().run(&steps)).map_err(TestCaseError::fail)?;
        held.set(held.get() + 1);
        if told_at.get().elapsed() > TELL_EVERY {
            told_at.set(Instant::now());
            eprintln!("model: {} of {cases} sequences held, with {}", held.get(), begin.named(kinds));
        }
        Ok(())
    });
    runtime.tokio.block_on(runs.into_inner().end());
    match broken {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => panic!("{why}\nafter these steps: {steps:#?}"),
        Err(TestError::Abort(why)) => panic!("no sequence was tried: {why}"),
    }
}

/// Sequences that run one after the other.
struct Runs<'a> {
    begin: &'a Begin,
    kinds: &'a [Kind],
    /// The most sequences that share control planes.
    life: u32,
    /// The world of the last sequence, if that one held.
    left: Option<World>,
    /// How many sequences have used `left`.
    lived: u32,
    /// From then on each sequence has its own control planes, so that the shortest failing one is found.
    has_broken: bool,
}

impl Runs<'_> {
    /// Runs one sequence. At its end all faults are repaired, and then every worker must reach the head.
    async fn run(&mut self, steps: &[Step]) -> Result<(), String> {
        let mut world = match self.left.take() {
            Some(mut world) => {
                world.begin_anew(self.kinds).await;
                world
            }
            None => {
                self.lived = 0;
                World::new(self.begin, self.kinds).await
            }
        };
        self.lived += 1;
        // A panic is a failure, too.
        let had_broken = std::mem::replace(&mut self.has_broken, true);
        let held = goes_through(&mut world, steps).await;
        self.has_broken = had_broken || held.is_err();
        if self.has_broken || self.lived >= self.life {
            world.end().await;
        } else {
            self.left = Some(world);
        }
        held.map_err(|why| format!("{why}\nin sequence {} of its control planes", self.lived))
    }

    async fn end(self) {
        if let Some(world) = self.left {
            world.end().await;
        }
    }
}

async fn goes_through(world: &mut World, steps: &[Step]) -> Result<(), String> {
    for (number, step) in steps.iter().enumerate() {
        world.take(step).await;
        world.holds().await.map_err(|why| format!("step {number}, {step:?}: {why}"))?;
    }
    world.heals().await.map_err(|why| format!("after all faults were repaired: {why}"))
}

// A sequence with three Envoys takes nearly as long as two sequences with one.

#[test]
fn invariants_hold_for_an_envoy_whose_workers_share_one_subscriber() {
    hold(40, &[Kind::Shares], On::AFile);
}

#[test]
fn invariants_hold_for_an_envoy_whose_workers_each_subscribe() {
    hold(25, &[Kind::EachAsks], On::AFile);
}

#[test]
fn invariants_hold_for_an_envoy_whose_workers_are_separate_instances() {
    hold(25, &[Kind::Lonely], On::AFile);
}

#[test]
fn invariants_hold_for_envoys_of_every_kind() {
    hold(10, &[Kind::Shares, Kind::EachAsks, Kind::Lonely], On::AFile);
}

/// Runs only where the tests are on PostgreSQL, because it is slow.
#[test]
fn invariants_hold_over_two_control_planes_on_one_postgresql() {
    if !server::is_postgres() {
        return;
    }
    hold(1, &[Kind::Shares, Kind::EachAsks], On::AServer);
}
