//! The subscription against a fake control plane without sockets.

use policy::Digest;
use policy::decide::Knowledge;
use policy::wire::{Op, WireError};

use super::*;
use crate::fake_control_plane::{FakeControlPlane, record, secret};
use crate::metrics::Report;

const BOUND_SECS: u64 = 60;

const PARAMETERS: FeedParameters<'_> = FeedParameters {
    instance: "0123",
    largest_bound: Some(BOUND_SECS),
    smallest_bound: Some(BOUND_SECS),
    applied: None,
};

struct Edge {
    subscription: Subscription,
    keys: Keys,
    clocks: Clocks,
}

impl Edge {
    fn new() -> Self {
        Self {
            subscription: Subscription::new("edge-1"),
            keys: Keys::default(),
            clocks: Clocks { wall_ms: 1_000_000, monotonic_ms: 50_000 },
        }
    }

    fn advance(&mut self, ms: u64) {
        self.clocks.monotonic_ms += ms;
        self.clocks.wall_ms += i64::try_from(ms).unwrap();
    }

    fn exchange(&mut self, control_plane: &FakeControlPlane) -> FeedProgress {
        self.exchange_with(|path| control_plane.respond(path))
    }

    fn exchange_with(&mut self, respond: impl FnOnce(&str) -> FeedResponse) -> FeedProgress {
        let fetch = self.next_fetch().expect("a fetch was due");
        assert_eq!(self.next_fetch(), None, "one call at a time");
        self.subscription.answered(&mut self.keys, self.clocks, 0, respond(&fetch.path)).progress
    }

    fn next_fetch(&mut self) -> Option<Fetch> {
        self.subscription.next_fetch(&self.keys, PARAMETERS, self.clocks)
    }

    /// Exchanges until nothing is newer.
    fn catch_up(&mut self, control_plane: &FakeControlPlane) {
        for _ in 0..100 {
            self.exchange(control_plane);
            if self.keys.live_table.table().map(Table::position) == Some(control_plane.position) {
                return;
            }
        }
        panic!("the edge never reached {:?}", control_plane.position);
    }

    fn has_key(&self, secret: &str) -> bool {
        match self.keys.knowledge(self.clocks, Some(BOUND_SECS)) {
            Knowledge::Serving(live_table) => live_table.find(&Digest::of(secret.as_bytes())).is_some(),
            Knowledge::NotReady => panic!("not ready"),
            Knowledge::Stale => panic!("stale"),
        }
    }

    fn is_ready(&self) -> bool {
        matches!(self.keys.knowledge(self.clocks, Some(BOUND_SECS)), Knowledge::Serving(_))
    }

    fn is_stale(&self) -> bool {
        matches!(self.keys.knowledge(self.clocks, Some(BOUND_SECS)), Knowledge::Stale)
    }
}

/// An edge that serves a table with the key of seed 1.
fn serving() -> (Edge, FakeControlPlane) {
    let mut control_plane = FakeControlPlane::new(1);
    control_plane.change(&[Op::Upsert(record(&secret(1)))]);
    let mut edge = Edge::new();
    edge.catch_up(&control_plane);
    assert!(edge.has_key(&secret(1)));
    (edge, control_plane)
}

#[test]
fn a_snapshot_serves_only_once_nothing_is_newer() {
    let mut control_plane = FakeControlPlane::new(1);
    control_plane.change(&[Op::Upsert(record(&secret(1)))]);
    control_plane.snapshot_now();
    control_plane.change(&[Op::Remove(Digest::of(secret(1).as_bytes()))]);
    let mut edge = Edge::new();
    edge.exchange(&control_plane);
    edge.exchange(&control_plane);
    assert!(!edge.is_ready(), "the loaded snapshot still has a key that was deleted since");
    edge.exchange(&control_plane);
    assert!(!edge.is_ready(), "the control plane has not confirmed yet that nothing is newer");
    assert_eq!(edge.exchange(&control_plane), FeedProgress::Updated(control_plane.position));
    assert!(!edge.has_key(&secret(1)));
}

#[test]
fn a_delta_is_enforced_as_soon_as_it_is_applied() {
    let (mut edge, mut control_plane) = serving();
    control_plane.change(&[Op::Upsert(record(&secret(2)))]);
    assert_eq!(edge.exchange(&control_plane), FeedProgress::Updated(control_plane.position));
    assert!(edge.has_key(&secret(2)));
}

#[test]
fn a_request_names_position_and_bound() {
    let (mut edge, control_plane) = serving();
    let path = edge.next_fetch().unwrap().path;
    let Position { epoch, revision, head } = control_plane.position;
    let expected = format!(
        "/edge/v1/feed?format=1&edge=edge-1&instance=0123&wait=20&max_staleness=60&epoch={epoch}&since={revision}&head={head}"
    );
    assert_eq!(path, expected);
}

#[test]
fn a_damaged_delta_changes_nothing_and_leads_to_a_snapshot() {
    let (mut edge, mut control_plane) = serving();
    control_plane.change(&[Op::Remove(Digest::of(secret(1).as_bytes()))]);
    let progress = edge.exchange_with(|path| {
        let mut response = control_plane.respond(path);
        *response.body.last_mut().unwrap() ^= 1;
        response
    });
    assert_eq!(progress, FeedProgress::Failed(Failure::Wire(WireError::Checksum)));
    assert!(edge.has_key(&secret(1)), "the old table still serves");
    edge.advance(MAX_BACKOFF_MS);
    control_plane.snapshot_now();
    edge.catch_up(&control_plane);
    assert!(!edge.has_key(&secret(1)));
}

#[test]
fn a_damaged_page_changes_nothing_and_is_requested_again() {
    let (mut edge, _) = serving();
    let mut other = FakeControlPlane::new(2);
    other.change(&[Op::Upsert(record(&secret(2)))]);
    other.snapshot_now();
    // The manifest, and that nothing is newer.
    edge.exchange(&other);
    edge.exchange(&other);
    let progress = edge.exchange_with(|path| {
        let mut response = other.respond(path);
        response.body.truncate(100);
        response
    });
    assert_eq!(progress, FeedProgress::Failed(Failure::Wire(WireError::Length)));
    assert!(edge.has_key(&secret(1)), "the old table still serves");
    edge.advance(MAX_BACKOFF_MS);
    edge.catch_up(&other);
    assert!(edge.has_key(&secret(2)));
}

#[test]
fn another_epoch_replaces_the_whole_table() {
    let (mut edge, _) = serving();
    let mut other = FakeControlPlane::new(2);
    other.change(&[Op::Upsert(record(&secret(2)))]);
    edge.catch_up(&other);
    assert!(edge.has_key(&secret(2)));
    assert!(!edge.has_key(&secret(1)), "a key of the old epoch is gone");
}

#[test]
fn a_snapshot_that_is_gone_is_requested_again() {
    let mut control_plane = FakeControlPlane::new(1);
    control_plane.change(&[Op::Upsert(record(&secret(1)))]);
    let mut edge = Edge::new();
    edge.exchange(&control_plane);
    control_plane.snapshot_now();
    assert_eq!(edge.exchange(&control_plane), FeedProgress::NoChange, "410 for a page is no failure");
    edge.catch_up(&control_plane);
    assert!(edge.has_key(&secret(1)));
}

#[test]
fn a_page_that_one_control_plane_lacks_is_requested_from_another() {
    let mut control_plane = FakeControlPlane::new(1);
    control_plane.change(&[Op::Upsert(record(&secret(1)))]);
    let mut edge = Edge::new();
    edge.exchange(&control_plane);
    let (mut requested, mut pages) = (Vec::new(), 0);
    for _ in 0..10 {
        edge.exchange_with(|path| {
            requested.push(path.to_owned());
            // One of two has the pages, and Envoy sends requests to each in turn.
            pages += u32::from(path.contains("/snapshots/"));
            let is_missing = path.contains("/snapshots/") && pages % 2 == 1;
            let status = Some(if is_missing { 410 } else { control_plane.respond(path).status.unwrap() });
            FeedResponse { status, ..control_plane.respond(path) }
        });
    }
    assert!(edge.has_key(&secret(1)), "{requested:#?}");
    let restarts = requested.iter().filter(|path| path.contains("/feed?") && !path.contains("&since=")).count();
    assert_eq!(restarts, 0, "the snapshot is not begun again: {requested:#?}");
}

#[test]
fn a_table_is_stale_by_either_clock() {
    let (mut edge, control_plane) = serving();
    edge.advance(BOUND_SECS * 1_000);
    assert!(edge.is_ready(), "the bound itself still serves");
    let Clocks { wall_ms, monotonic_ms } = edge.clocks;
    edge.clocks = Clocks { wall_ms: wall_ms + 1, monotonic_ms };
    assert!(edge.is_stale(), "by the wall clock");
    edge.clocks = Clocks { wall_ms: wall_ms - 3_600_000, monotonic_ms: monotonic_ms + 1 };
    assert!(edge.is_stale(), "by the monotonic clock, though the wall clock was set back");
    edge.exchange(&control_plane);
    assert!(edge.is_ready(), "a confirmation of the control plane ends it");
}

#[test]
fn a_delta_that_does_not_reach_the_newest_revision_confirms_nothing() {
    let (mut edge, mut control_plane) = serving();
    edge.advance(BOUND_SECS * 1_000 + 1);
    control_plane.change(&[Op::Upsert(record(&secret(2)))]);
    let newest = control_plane.position.revision.0;
    edge.exchange_with(|path| FeedResponse { head: Some(newest + 1), ..control_plane.respond(path) });
    assert!(edge.is_stale(), "one change is missing");
    edge.exchange(&control_plane);
    assert!(edge.is_ready());
}

#[test]
fn freshness_is_measured_from_the_request_and_not_from_the_response() {
    let (mut edge, control_plane) = serving();
    let fetch = edge.next_fetch().unwrap();
    edge.advance(BOUND_SECS * 1_000 + 1);
    edge.subscription.answered(&mut edge.keys, edge.clocks, 0, control_plane.respond(&fetch.path));
    assert!(edge.is_stale(), "a response that lay unread confirms the table as of its request");
}

#[test]
fn no_bound_means_never_stale() {
    let (mut edge, _) = serving();
    edge.advance(u64::from(u32::MAX));
    assert!(matches!(edge.keys.knowledge(edge.clocks, None), Knowledge::Serving(_)));
}

#[test]
fn a_clock_that_is_set_back_makes_no_time_repeat() {
    let (mut edge, mut control_plane) = serving();
    control_plane.time_ms = edge.clocks.wall_ms;
    edge.exchange(&control_plane);
    let before = edge.keys.now(edge.clocks);
    edge.clocks.wall_ms -= 3_600_000;
    edge.clocks.monotonic_ms += 2_001;
    let after = edge.keys.now(edge.clocks);
    assert_eq!(after.0, before.0 + 2, "an hour back, two seconds later, and a millisecond for the truncation");
}

#[test]
fn an_error_status_and_a_foreign_response_change_nothing() {
    let (mut edge, control_plane) = serving();
    for (status, failure) in [
        (None, Failure::NoAnswer),
        (Some(401), Failure::Token),
        (Some(403), Failure::Token),
        (Some(406), Failure::Format),
        (Some(410), Failure::Retired),
        (Some(503), Failure::Status(503)),
        (Some(301), Failure::Status(301)),
    ] {
        edge.advance(MAX_BACKOFF_MS);
        let progress = edge.exchange_with(|path| FeedResponse { status, ..control_plane.respond(path) });
        assert_eq!(progress, FeedProgress::Failed(failure));
        assert!(edge.has_key(&secret(1)));
    }
    edge.advance(MAX_BACKOFF_MS);
    let unreachable = |path: &str| FeedResponse { status: Some(503), time_ms: None, ..control_plane.respond(path) };
    let progress = edge.exchange_with(unreachable);
    assert_eq!(progress, FeedProgress::Failed(Failure::Unreachable(503)), "Envoy's own answer");
    edge.advance(MAX_BACKOFF_MS);
    let progress = edge.exchange_with(|path| FeedResponse { time_ms: None, ..control_plane.respond(path) });
    assert_eq!(progress, FeedProgress::Failed(Failure::NotOurs), "a 204 of a proxy confirms nothing");
}

#[test]
fn retries_wait_between_a_fifth_of_a_second_and_two_seconds() {
    let mut edge = Edge::new();
    for random in [0, 128, 255] {
        for _ in 0..10 {
            edge.next_fetch().expect("a fetch was due");
            edge.subscription.not_sent(edge.clocks, random);
            edge.advance(MIN_BACKOFF_MS / 2 - 1);
            assert_eq!(edge.next_fetch(), None, "too early");
            edge.advance(MAX_BACKOFF_MS - MIN_BACKOFF_MS / 2 + 1);
        }
    }
}

#[test]
fn retries_back_off_further_when_the_control_plane_has_no_place() {
    let (mut edge, control_plane) = serving();
    let full = |path: &str| {
        let response = control_plane.respond(path);
        FeedResponse { status: Some(503), time_ms: None, retry_after_secs: Some(30), ..response }
    };
    for wait_ms in [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 15_000, 15_000] {
        assert_eq!(edge.exchange_with(full), FeedProgress::Failed(Failure::Crowded));
        edge.advance(wait_ms - 1);
        assert_eq!(edge.next_fetch(), None, "before {wait_ms} ms");
        edge.advance(1);
    }
    edge.exchange(&control_plane);
    let soon =
        |path: &str| FeedResponse { status: Some(503), retry_after_secs: Some(1), ..control_plane.respond(path) };
    assert_eq!(edge.exchange_with(soon), FeedProgress::Failed(Failure::Status(503)), "a storage that is unavailable");
}

#[test]
fn a_call_without_a_response_is_retried() {
    let (mut edge, mut control_plane) = serving();
    control_plane.change(&[Op::Upsert(record(&secret(2)))]);
    let lost = edge.next_fetch().unwrap();
    edge.advance(lost.timeout_ms);
    assert_eq!(edge.next_fetch(), None, "Envoy reports the time-out itself");
    edge.advance(MAX_BACKOFF_MS);
    edge.exchange(&control_plane);
    assert!(edge.has_key(&secret(2)));
}

#[test]
fn gauges_report_the_table_and_its_age() {
    let (mut edge, control_plane) = serving();
    edge.advance(5_999);
    let report = edge.keys.report(edge.clocks, Some(BOUND_SECS));
    let expected = Report { revision: control_plane.position.revision.0, keys: 1, age_secs: 5, is_ready: true };
    assert_eq!(report, expected);
    edge.advance(BOUND_SECS * 1_000);
    assert!(!edge.keys.report(edge.clocks, Some(BOUND_SECS)).is_ready, "a stale table decides nothing");
    assert_eq!(Edge::new().keys.report(edge.clocks, None), Report::default());
}
