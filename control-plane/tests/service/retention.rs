//! Retention times hold, whatever the clock shows in the meantime.

use std::sync::Arc;

use axum::http::Method;
use latchkey::base::config::Config;
use latchkey::base::entropy::Entropy;
use policy::{Digest, UnixSeconds};
use serde_json::json;
use tracing::Level;

use crate::captured_log::CapturedLog;
use crate::harness::{EDGE, Service};
use crate::import::{ACME, import, line, refused};
use test_support::databases::is_postgres;

const DAY: u64 = 86_400;

/// The harness's clock at its start, which is the beginning of an hour.
const START_SECS: i64 = 1_795_420_800;

/// What identifies a session.
const SESSION: &[u8] = b"a session";

/// A service with data that expires: a deleted key's digest, a revoked token, usage, and a session.
struct ExpiringData {
    service: Service,
    secret: String,
    token: String,
    used: String,
}

/// Which of this data is still there.
#[derive(Debug, PartialEq)]
struct RemainingData {
    digest: bool,
    token: bool,
    requests: u64,
    session: bool,
}

const ALL: RemainingData = RemainingData { digest: true, token: true, requests: 5, session: true };

impl ExpiringData {
    async fn start() -> Self {
        let service = Service::start().await;
        service.workspace("acme").await;
        let (path, secret) = service.key("acme", json!({})).await;
        assert_eq!(service.delete(&path).await.status, 204);
        let (id, token) = service.token("platform_admin", None).await;
        assert_eq!(service.delete(&format!("/v1/admin-tokens/{id}")).await.status, 204);
        let (used, _) = service.key("acme", json!({})).await;
        service.poll(None, 0).await;
        let key = json!({"key": used.rsplit('/').next(), "hour": START_SECS, "allowed": 5});
        let batch = json!({"edge": "edge-1", "instance": "i1", "worker": "w", "sequence": 1, "keys": [key]});
        let reported = service.call_as(EDGE, Method::POST, "/edge/v1/usage", batch, &[]).await;
        assert_eq!(reported.status, 200, "{}", reported.text());
        let (session, token_digest) = (Digest::of(SESSION), Digest::of(b"a token"));
        service.store.open_session(session, token_digest, UnixSeconds(START_SECS)).await.unwrap();
        let data = Self { service, secret, token, used };
        assert_eq!(data.remaining().await, ALL);
        data
    }

    async fn restart(self) -> Self {
        Self { service: self.service.restart().await, ..self }
    }

    async fn remaining(&self) -> RemainingData {
        let service = &self.service;
        let is_known =
            async |secret: &str| service.post("/v1/keys/identify", json!({"secret": secret})).await.status == 200;
        // As a request in time would see it.
        let session = service.store.session(Digest::of(SESSION), UnixSeconds(START_SECS)).await.unwrap();
        let usage = service.get(&format!("{}/usage", self.used)).await.json();
        RemainingData {
            digest: is_known(&self.secret).await,
            token: is_known(&self.token).await,
            requests: usage["totals"]["allowed"].as_u64().unwrap(),
            session: session.is_some(),
        }
    }

    async fn sweeps_and_keeps_all(&self, when: &str) {
        self.service.sweep().await;
        assert_eq!(self.remaining().await, ALL, "{when}");
        let again = import(&self.service, ACME, &[line(&self.secret, json!({"name": "again"}))]).await;
        assert_eq!(refused(&again), ["1 digest refused"], "{when}: nobody brings the secret back");
    }
}

#[tokio::test]
async fn a_start_with_a_clock_far_ahead_removes_nothing_until_the_clock_is_right_and_reports_it() {
    let data = ExpiringData::start().await;
    data.service.set_wall_forward(400 * DAY);
    let data = data.restart().await;
    let (logged, _guard) = CapturedLog::of_this_thread();
    data.sweeps_and_keeps_all("a start 400 days ahead").await;
    let errors = logged.lines(Level::ERROR);
    assert_eq!(errors.len(), 1, "{errors:?}");
    for words in ["nothing is removed by age", "Set this machine's clock right", "off_days=400", "2026-11-23T08:00:00Z"]
    {
        assert!(errors[0].contains(words), "{words}: {}", errors[0]);
    }
    data.service.set_wall_back(400 * DAY);
    data.sweeps_and_keeps_all("the clock is set right").await;
    data.service.advance(DAY);
    data.service.sweep().await;
    assert_eq!(data.remaining().await, RemainingData { session: false, ..ALL }, "a day has passed");
    assert_eq!(logged.lines(Level::ERROR).len(), 1, "{}", logged.text());
    data.service.advance(366 * DAY);
    data.service.sweep().await;
    assert_eq!(data.remaining().await, RemainingData { digest: false, token: false, requests: 0, session: false });
}

#[tokio::test]
async fn changes_made_by_a_wrong_clock_remove_nothing_at_the_next_start() {
    let data = ExpiringData::start().await;
    data.service.set_wall_forward(400 * DAY);
    let data = data.restart().await;
    data.service.workspace("later").await;
    let data = data.restart().await;
    data.sweeps_and_keeps_all("the newest change agrees with the clock").await;
    data.service.set_wall_back(400 * DAY);
    data.sweeps_and_keeps_all("the clock is set right").await;
    let data = data.restart().await;
    data.sweeps_and_keeps_all("and is right at the next start").await;
    // The same for a clock that was behind, once it is right.
    data.service.set_wall_back(400 * DAY);
    data.service.sweep().await;
    data.service.set_wall_forward(400 * DAY);
    data.sweeps_and_keeps_all("and right again").await;
}

#[tokio::test]
async fn a_clock_that_is_set_forward_while_it_runs_removes_nothing() {
    let data = ExpiringData::start().await;
    for days in [6, 394] {
        data.service.set_wall_forward(days * DAY);
        data.sweeps_and_keeps_all("it runs").await;
    }
}

#[tokio::test]
async fn time_counts_while_it_runs_over_restarts() {
    let data = ExpiringData::start().await;
    data.service.advance(200 * DAY);
    data.service.sweep().await;
    let data = data.restart().await;
    data.service.advance(164 * DAY);
    data.service.sweep().await;
    assert_eq!(data.remaining().await, RemainingData { session: false, ..ALL }, "after 364 days");
    data.service.advance(2 * DAY);
    data.service.sweep().await;
    assert_eq!(
        data.remaining().await,
        RemainingData { digest: false, token: false, requests: 0, session: false },
        "after 366 days"
    );
}

#[tokio::test]
async fn replicas_don_t_add_up_the_time_that_passes_at_each() {
    if !is_postgres() {
        return;
    }
    let data = ExpiringData::start().await;
    let directory = Arc::clone(&data.service.directory);
    let other = Service::start_in(directory, Config::default(), Entropy::system()).await;
    for _ in 0..2 {
        for service in [&data.service, &other] {
            service.advance(150 * DAY);
            // Their wall clocks are far ahead; what counts is how long they have run.
            service.set_wall_forward(DAY);
            service.sweep().await;
        }
    }
    assert!(data.remaining().await.digest, "300 days have passed");
    for service in [&data.service, &other] {
        service.advance(66 * DAY);
        service.sweep().await;
    }
    assert!(!data.remaining().await.digest, "366 days have passed");
}
