//! The acknowledgement: which revision each worker of an instance has applied.

use serde::{Deserialize, Serialize};

use crate::id::Epoch;
use crate::position::Revision;

/// The body that an instance posts. It names every worker that decides requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The operator's name for the gateway; see [`is_name`](super::is_name).
    pub edge: String,
    /// The id of this Envoy process, as in its feed requests.
    pub instance: String,
    /// The history that the revisions are of: 32 hexadecimal digits.
    pub epoch: String,
    /// The filter's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The longest that a worker decides without a confirmation from the control plane. `null`: forever. It is
    /// required, so that no edge omits it by mistake.
    #[serde(deserialize_with = "Option::deserialize")]
    pub max_staleness_secs: Option<u64>,
    /// Each worker once, also those that have ended. A worker that is omitted but still counts is answered with 409.
    pub workers: Vec<WorkerReport>,
}

/// What one worker has applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The random id that the worker has drawn, unique in its instance.
    pub id: String,
    /// A revision of the acknowledgement's epoch; 0 while the worker has no table of it, and denies.
    pub applied: u64,
    /// Seconds since 1970, by the worker's own clock.
    pub started_at: i64,
    /// The worker is gone, or was suspended for so long that it resyncs before it decides: enforcement no longer waits
    /// for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

impl Acknowledgement {
    /// Whether every worker that hasn't ended has applied the same revision.
    pub fn is_uniform(&self) -> bool {
        let mut applied = self.workers.iter().filter(|worker| !worker.ended).map(|worker| worker.applied);
        let first = applied.next();
        applied.all(|applied| Some(applied) == first)
    }

    /// The ids of the workers that have ended.
    pub fn ended(&self) -> impl Iterator<Item = &str> {
        self.workers.iter().filter(|worker| worker.ended).map(|worker| worker.id.as_str())
    }
}

/// The body of the answer: the control plane's newest position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcknowledgementAnswer {
    /// The control plane's current history, which may be newer than the acknowledgement's.
    pub epoch: Epoch,
    /// The newest revision of that epoch.
    pub head: Revision,
    /// 64 hexadecimal digits.
    pub chain_hash: String,
}
