//! The invariants after each step: see "Model tests" in `docs/reliability.md`.

use std::time::Instant;

use axum::http::Method;
use policy::{Position, Revision};

use crate::control_plane::RECOVERY_TIMEOUT;
use crate::envoy::{Envoy, LinkState, Worker};
use crate::oracle::{PROBES, Probe};
use crate::world::{World, pick};

/// By how much two clocks may differ, in seconds.
const CLOCK_TOLERANCE: i64 = 1;

/// By how much the time of a worker may lag after its wall clock was set back, in seconds: as long as an answer of the
/// control plane may take.
const MAX_TIME_LAG: i64 = 60;

/// How many revisions that were not enforced yet are checked: the newest ones.
const CHECKED_REVISIONS: u64 = 4;

/// Turns of one second within which everything must recover: the longest bound, plus the longest timeout of a call.
const RECOVERY_TURNS: usize = 150;

impl World {
    /// Checks all invariants now.
    pub(crate) async fn check_invariants(&mut self) -> Result<(), String> {
        self.update_enforced().await;
        self.turn += 1;
        for envoy in &self.envoys {
            for (number, worker) in envoy.workers.iter().enumerate().filter(|(_, worker)| worker.runs) {
                let at = |why| format!("{:?}, VM {number}: {why}", envoy.sharing());
                self.check_position(worker).map_err(at)?;
                for (turn, secret) in (self.turn..).zip(&self.secrets) {
                    let probe = &PROBES[turn % PROBES.len()];
                    let verdict = worker.would_decide(&envoy.edge, probe, secret);
                    self.check_verdict(envoy, worker, secret, probe, &verdict).map_err(at)?;
                }
            }
            let leaks = envoy.calls.iter().any(|call| self.secrets.iter().any(|secret| call.request.contains(secret)));
            if leaks {
                return Err("a secret leaves an Envoy".to_owned());
            }
        }
        self.envoys
            .iter_mut()
            .flat_map(|envoy| &mut envoy.workers)
            .for_each(|worker| worker.last_position = worker.position());
        self.decided.take().map_or(Ok(()), Err)
    }

    /// A request to a worker, which may catch up with the others before it decides.
    pub(crate) fn request(&mut self, envoy: u8, vm: u8, secret: u8, probe: u8) {
        let (Some(envoy), Some(secret)) = (pick(&self.envoys, envoy), pick(&self.secrets, secret)) else { return };
        let (Some(worker), Some(probe)) = (pick(&envoy.workers, vm), pick(&PROBES, probe)) else { return };
        if worker.runs {
            let verdict = worker.decide_request(&envoy.edge, probe, secret);
            self.decided = self.check_verdict(envoy, worker, secret, probe, &verdict).err();
        }
    }

    /// Queries the newest enforced revision.
    async fn update_enforced(&mut self) {
        let Position { epoch, revision: head, .. } = self.head();
        let known = self.enforced.filter(|(own, _)| *own == epoch).map_or(Revision(0), |(_, revision)| revision);
        let first = self.answered.first().copied().unwrap_or(head.0).max(known.0 + 1);
        for revision in (first.max((head.0 + 1).saturating_sub(CHECKED_REVISIONS))..=head.0).rev() {
            if self.is_enforced(revision).await {
                self.enforced = Some((epoch, Revision(revision)));
                return;
            }
        }
    }

    async fn is_enforced(&self, revision: u64) -> bool {
        let path = format!("/v1/enforcement?revision={revision}");
        // The answer of each control plane must be true.
        let answer = self.control_plane_of(self.turn).call(Method::GET, &path, "").await;
        answer.json()["enforced"].as_bool().unwrap_or_else(|| panic!("{}", answer.text()))
    }

    /// A table's position must have existed, and must never go back within an epoch.
    fn check_position(&self, worker: &Worker) -> Result<(), String> {
        let Some(position) = worker.position() else { return Ok(()) };
        if self.oracle.at(position).is_none() {
            return Err(format!("{position:?} never existed"));
        }
        match worker.last_position {
            Some(last_position)
                if last_position.epoch == position.epoch && last_position.revision > position.revision =>
            {
                Err(format!("it went back from {} to {}", last_position.revision, position.revision))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A worker must decide by the oracle's keys at its own revision, which must not be older than the enforced one.
    fn check_verdict(
        &self,
        envoy: &Envoy,
        worker: &Worker,
        secret: &str,
        probe: &Probe,
        verdict: &str,
    ) -> Result<(), String> {
        if matches!(verdict, "not-ready" | "stale") {
            return Ok(());
        }
        let position = worker.position().ok_or("it decides without a table")?;
        let (now, clock_error_secs) = (self.time.now().0, envoy.shared.clock_error_ms.get() / 1_000);
        let earliest = now - CLOCK_TOLERANCE - if clock_error_secs < 0 { MAX_TIME_LAG } else { 0 };
        let mut allowed =
            self.oracle.verdicts(position, secret, probe, (earliest, now + CLOCK_TOLERANCE + clock_error_secs.max(0)));
        if allowed.contains(&"rotated-key") {
            // Edges forget secrets that were rotated out long ago.
            allowed.push("unknown-key");
        }
        if !allowed.contains(&verdict) {
            let method = probe.method;
            return Err(format!(
                "`{verdict}` for {method} with {secret} at revision {}, not {allowed:?}",
                position.revision
            ));
        }
        match self.enforced {
            Some((epoch, revision)) if position.epoch != epoch || position.revision < revision => {
                let own = position.revision;
                Err(format!("it decides `{verdict}` by revision {own}, though {revision} is enforced"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Repairs all faults. Within a limited time, every worker must have all changes and decide by them, the control
    /// plane must report them as enforced, and each change must be in the audit log.
    pub(crate) async fn check_recovery(&mut self) -> Result<(), String> {
        for envoy in &mut self.envoys {
            (envoy.link, envoy.delivers_wakes) = (LinkState::Prompt, true);
            envoy.shared.clock_error_ms.set(0);
            envoy.workers.iter_mut().for_each(|worker| worker.runs = true);
        }
        let (mut turns, began) = (0, Instant::now());
        loop {
            self.wait_for_all_heads().await;
            if self.all_decide_by_the_head().await {
                break;
            }
            turns += 1;
            if turns > RECOVERY_TURNS && (self.is_alone() || began.elapsed() > RECOVERY_TIMEOUT) {
                let positions = self.envoys.iter().flat_map(|envoy| &envoy.workers).map(Worker::position);
                let positions: Vec<_> =
                    positions.map(|position| position.map(|position| position.revision.0)).collect();
                return Err(format!("head {}, workers {positions:?}", self.head().revision));
            }
            self.turn(1_000).await;
        }
        self.check_invariants().await?;
        self.check_audit_log().await
    }

    async fn wait_for_all_heads(&self) {
        let head = self.head();
        for control_plane in self.control_planes() {
            control_plane.wait_for_head(head).await;
        }
    }

    async fn all_decide_by_the_head(&self) -> bool {
        let head = self.head();
        let is_current = |envoy: &Envoy, worker: &Worker| {
            let verdict = worker.would_decide(&envoy.edge, &PROBES[0], &self.secrets[0]);
            worker.is_current(head) && verdict == "unknown-key"
        };
        let all = self.envoys.iter().all(|envoy| envoy.workers.iter().all(|worker| is_current(envoy, worker)));
        all && self.is_enforced(head.revision.0).await
    }

    async fn check_audit_log(&self) -> Result<(), String> {
        let answer = self.control_plane().call(Method::GET, "/v1/audit-events?limit=200", "").await.json();
        let items = answer["items"].as_array().ok_or("no audit log")?;
        let logged: Vec<_> = items.iter().filter_map(|event| event["revision"].as_u64()).collect();
        match self.answered.iter().find(|revision| logged.iter().filter(|own| own == revision).count() != 1) {
            Some(lost) => Err(format!("change {lost} was answered, and is not in the audit log exactly once")),
            None => Ok(()),
        }
    }
}
