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

use std::cell::Cell;
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::envoy::Kind;
use crate::steps::{Step, steps};
use crate::world::{Begin, World};

/// Sequences a test runs, unless `MODEL_CASES` says how many.
const CASES: u32 = 1_000;

/// With a server, which takes its time, it is this part of them.
const A_SERVER_S_PART: u32 = 50;

/// How often a long run says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Where the control plane has its database: one alone, or two over a PostgreSQL.
enum On {
    AFile,
    AServer,
}

/// Runs random sequences over Envoys of these kinds; the shortest that breaks something is printed.
fn hold(kinds: &[Kind], on: On) {
    let asked = std::env::var("MODEL_CASES").ok().map(|text| text.parse().expect("MODEL_CASES is a number"));
    let cases = asked.unwrap_or(CASES);
    let runtime = time::Runtime::new();
    let begin = match on {
        On::AFile => Begin::File(runtime.tokio.block_on(control_plane::template())),
        On::AServer => Begin::Server(server::start(&[])),
    };
    let cases = match begin {
        Begin::File(_) => cases,
        Begin::Server(_) => cases.div_ceil(A_SERVER_S_PART),
    };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    // A test tries the same sequences each time; whoever asks for a number wants new ones.
    let mut runner = match asked {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let (held, told_at) = (Cell::new(0_u32), Cell::new(Instant::now()));
    let broken = runner.run(&steps(), |steps| {
        runtime.tokio.block_on(run(&begin, kinds, &steps)).map_err(TestCaseError::fail)?;
        held.set(held.get() + 1);
        if told_at.get().elapsed() > TELL_EVERY {
            told_at.set(Instant::now());
            eprintln!("model: {} of {cases} sequences held, with {}", held.get(), begin.named(kinds));
        }
        Ok(())
    });
    match broken {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => panic!("{why}\nafter these steps: {steps:#?}"),
        Err(TestError::Abort(why)) => panic!("no sequence was tried: {why}"),
    }
}

/// One sequence. Whatever it leads to, at its end all faults are repaired, and then everybody must get where the head is.
async fn run(begin: &Begin, kinds: &[Kind], steps: &[Step]) -> Result<(), String> {
    let mut world = World::new(begin, kinds).await;
    let mut held = Ok(());
    for (number, step) in steps.iter().enumerate() {
        world.take(step).await;
        held = world.holds().await.map_err(|why| format!("step {number}, {step:?}: {why}"));
        if held.is_err() {
            break;
        }
    }
    if held.is_ok() {
        held = world.heals().await.map_err(|why| format!("after all faults were repaired: {why}"));
    }
    world.end().await;
    held
}

#[test]
fn what_must_hold_holds_for_an_envoy_whose_workers_share_one_subscriber() {
    hold(&[Kind::Shares], On::AFile);
}

#[test]
fn what_must_hold_holds_for_envoys_of_every_kind() {
    hold(&[Kind::Shares, Kind::EachAsks, Kind::Lonely], On::AFile);
}

/// Runs where the tests are on PostgreSQL.
#[test]
fn what_must_hold_holds_over_two_control_planes_on_one_postgresql() {
    if !server::is_postgres() {
        return;
    }
    hold(&[Kind::Shares, Kind::EachAsks], On::AServer);
}
