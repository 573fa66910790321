//! A model of the whole: random changes, losses and restarts over the real control plane and the real filter, in one process
//! and in fake time. After each step it holds what must hold always.
//!
//! `steps.rs` says what may happen, `world.rs` makes it happen, `truth.rs` knows what is allowed, and `held.rs` compares. Only
//! Envoy, the network and the clocks are not real: `envoy.rs`, `network.rs` and `time.rs`.
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

/// Sequences of all tests together, unless `MODEL_CASES` says how many.
const CASES: u32 = 2_000;

/// Sequences that the same control planes live through where a number was asked for: their start costs as much as a sequence.
const LIFE: u32 = 50;

/// How often a long run says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Where the control plane has its database: one alone, or two over a PostgreSQL.
enum On {
    AFile,
    AServer,
}

/// Runs so many of a hundred random sequences over Envoys of these kinds; the shortest that breaks something is printed.
fn hold(percent: u32, kinds: &[Kind], on: On) {
    let asked = std::env::var("MODEL_CASES").ok().map(|text| text.parse().expect("MODEL_CASES is a number"));
    let cases = asked.unwrap_or(CASES).div_ceil(100) * percent;
    let runtime = time::Runtime::new();
    let begin = match on {
        On::AFile => Begin::File(runtime.tokio.block_on(control_plane::template())),
        On::AServer => Begin::Server(server::start(&[])),
    };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    // A test tries the same sequences each time; whoever asks for a number wants new ones.
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

/// Sequences, one after the other.
struct Runs<'a> {
    begin: &'a Begin,
    kinds: &'a [Kind],
    /// The most sequences of a control plane.
    life: u32,
    /// What the last one left, if it held.
    left: Option<World>,
    /// Those that `left` has lived through.
    lived: u32,
    /// From then on each has control planes of its own, so that the shortest that breaks is found.
    has_broken: bool,
}

impl Runs<'_> {
    /// One sequence. Whatever it leads to, at its end all faults are repaired, and then everybody must get where the head is.
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
        // A panic breaks it, too.
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

// A sequence with three Envoys takes nearly as long as two with one.

#[test]
fn what_must_hold_holds_for_an_envoy_whose_workers_share_one_subscriber() {
    hold(40, &[Kind::Shares], On::AFile);
}

#[test]
fn what_must_hold_holds_for_an_envoy_whose_workers_each_ask() {
    hold(25, &[Kind::EachAsks], On::AFile);
}

#[test]
fn what_must_hold_holds_for_an_envoy_whose_workers_know_nothing_of_each_other() {
    hold(25, &[Kind::Lonely], On::AFile);
}

#[test]
fn what_must_hold_holds_for_envoys_of_every_kind() {
    hold(10, &[Kind::Shares, Kind::EachAsks, Kind::Lonely], On::AFile);
}

/// Runs where the tests are on PostgreSQL, which takes its time.
#[test]
fn what_must_hold_holds_over_two_control_planes_on_one_postgresql() {
    if !server::is_postgres() {
        return;
    }
    hold(1, &[Kind::Shares, Kind::EachAsks], On::AServer);
}
