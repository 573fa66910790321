//! The invariants after each step: see "Model tests" in `docs/reliability.md`.

use std::time::Instant;

use axum::http::Method;
use policy::{Position, Revision};

use crate::control_plane::PATIENCE;
use crate::envoy::{Envoy, Line, Worker};
use crate::truth::{PROBES, Probe};
use crate::world::{World, chosen};

/// By how much two clocks may differ at an instant, in seconds.
const MOMENT: i64 = 1;

/// By how much the time of a worker may lag after its wall clock was set back, in seconds: as long as an answer of the
/// control plane may take.
const ON_THE_WAY: i64 = 60;

/// How many revisions that were not enforced yet are checked: the newest ones.
const ASKED: u64 = 4;

/// Turns of a second in which everything must recover: the longest bound, plus the longest time of a call.
const HEALING: usize = 150;

impl World {
    /// Checks all invariants now.
    pub async fn holds(&mut self) -> Result<(), String> {
        self.enforced().await;
        self.turn += 1;
        for envoy in &self.envoys {
            for (number, worker) in envoy.workers.iter().enumerate().filter(|(_, worker)| worker.runs) {
                let at = |why| format!("{:?}, VM {number}: {why}", envoy.kind());
                self.position_holds(worker).map_err(at)?;
                for (turn, secret) in (self.turn..).zip(&self.secrets) {
                    let probe = &PROBES[turn % PROBES.len()];
                    let verdict = worker.would_decide(&envoy.edge, probe, secret);
                    self.verdict_holds(envoy, worker, secret, probe, &verdict).map_err(at)?;
                }
            }
            let tells = envoy.calls.iter().any(|call| self.secrets.iter().any(|secret| call.question.holds(secret)));
            if tells {
                return Err("a secret leaves an Envoy".to_owned());
            }
        }
        self.envoys.iter_mut().flat_map(|envoy| &mut envoy.workers).for_each(|worker| worker.stood = worker.position());
        self.decided.take().map_or(Ok(()), Err)
    }

    /// A request to a worker, which may catch up with the others before it decides.
    pub fn request(&mut self, envoy: u8, vm: u8, secret: u8, probe: u8) {
        let (Some(envoy), Some(secret)) = (chosen(&self.envoys, envoy), chosen(&self.secrets, secret)) else { return };
        let (Some(worker), Some(probe)) = (chosen(&envoy.workers, vm), chosen(&PROBES, probe)) else { return };
        if worker.runs {
            let verdict = worker.decides(&envoy.edge, probe, secret);
            self.decided = self.verdict_holds(envoy, worker, secret, probe, &verdict).err();
        }
    }

    /// Asks for the newest enforced revision.
    async fn enforced(&mut self) {
        let Position { epoch, revision: head, .. } = self.head();
        let known = self.enforced.filter(|(own, _)| *own == epoch).map_or(Revision(0), |(_, revision)| revision);
        let first = self.answered.first().copied().unwrap_or(head.0).max(known.0 + 1);
        for revision in (first.max((head.0 + 1).saturating_sub(ASKED))..=head.0).rev() {
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
    fn position_holds(&self, worker: &Worker) -> Result<(), String> {
        let Some(position) = worker.position() else { return Ok(()) };
        if self.truth.at(position).is_none() {
            return Err(format!("{position:?} never existed"));
        }
        match worker.stood {
            Some(stood) if stood.epoch == position.epoch && stood.revision > position.revision => {
                Err(format!("it went back from {} to {}", stood.revision, position.revision))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A worker must decide by the truth at its own revision, which must not be older than the enforced one.
    fn verdict_holds(
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
        let (now, wrong_by) = (self.time.now().0, envoy.shared.wrong_by_ms.get() / 1_000);
        let earliest = now - MOMENT - if wrong_by < 0 { ON_THE_WAY } else { 0 };
        let mut right = self.truth.verdicts(position, secret, probe, (earliest, now + MOMENT + wrong_by.max(0)));
        if right.contains(&"rotated-key") {
            // Edges forget secrets that were rotated out long ago.
            right.push("unknown-key");
        }
        if !right.contains(&verdict) {
            let asked = probe.method;
            return Err(format!(
                "`{verdict}` for {asked} with {secret} at revision {}, not {right:?}",
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
    pub async fn heals(&mut self) -> Result<(), String> {
        for envoy in &mut self.envoys {
            (envoy.line, envoy.delivers_wakes) = (Line::Prompt, true);
            envoy.shared.wrong_by_ms.set(0);
            envoy.workers.iter_mut().for_each(|worker| worker.runs = true);
        }
        let (mut turns, began) = (0, Instant::now());
        loop {
            self.all_hear_of_each_other().await;
            if self.all_decide_by_the_head().await {
                break;
            }
            turns += 1;
            if turns > HEALING && (self.is_alone() || began.elapsed() > PATIENCE) {
                let stand = self.envoys.iter().flat_map(|envoy| &envoy.workers).map(Worker::position);
                let stand: Vec<_> = stand.map(|position| position.map(|position| position.revision.0)).collect();
                return Err(format!("head {}, workers {stand:?}", self.head().revision));
            }
            self.turn(1_000).await;
        }
        self.holds().await?;
        self.audit_holds().await
    }

    async fn all_hear_of_each_other(&self) {
        let head = self.head();
        for control_plane in self.control_planes() {
            control_plane.hears_of(head).await;
        }
    }

    async fn all_decide_by_the_head(&self) -> bool {
        let head = self.head();
        let decides = |envoy: &Envoy, worker: &Worker| {
            let verdict = worker.would_decide(&envoy.edge, &PROBES[0], &self.secrets[0]);
            worker.is_there(head) && verdict == "unknown-key"
        };
        let all = self.envoys.iter().all(|envoy| envoy.workers.iter().all(|worker| decides(envoy, worker)));
        all && self.is_enforced(head.revision.0).await
    }

    async fn audit_holds(&self) -> Result<(), String> {
        let answer = self.control_plane().call(Method::GET, "/v1/audit-events?limit=200", "").await.json();
        let items = answer["items"].as_array().ok_or("no audit log")?;
        let logged: Vec<_> = items.iter().filter_map(|event| event["revision"].as_u64()).collect();
        match self.answered.iter().find(|revision| logged.iter().filter(|own| own == revision).count() != 1) {
            Some(lost) => Err(format!("change {lost} was answered, and is not in the audit log exactly once")),
            None => Ok(()),
        }
    }
}
