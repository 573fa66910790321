//! The head: the position of the leader's table, and from where another worker can load or follow it.

use policy::{Position, Revision};
use serde::{Deserialize, Serialize};

use super::shared_store::{LeaderDeposed, SharedStore};
use crate::host::Host;
use crate::keys::{Clocks, ControlPlaneTime};

/// What the leader publishes for all workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The term of the leader that wrote it.
    pub term: u64,
    /// Grows with each snapshot. A worker with another generation loads all pages again.
    pub generation: u64,
    /// The size of the ring buffer of this generation's deltas.
    pub slots: u64,
    /// Whether all pages, and all deltas after `base`, are published, so that a worker can load them.
    pub is_complete: bool,
    /// All pages contain the changes up to here; the deltas follow.
    pub base: DeltaPosition,
    /// The position after the last delta.
    pub to: DeltaPosition,
    /// When the request was sent whose response confirmed `to`: see
    /// [`Keys::confirmed_at`](crate::keys::Keys::confirmed_at).
    pub vouched: Option<Clocks>,
    /// The control plane's clock, as of its last response to the leader.
    pub heard: Option<ControlPlaneTime>,
}

/// A position, and the number of the delta that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "DeltaPositionText", try_from = "DeltaPositionText")]
pub struct DeltaPosition {
    /// The position of a table that has all deltas before `delta`.
    pub position: Position,
    /// The number of the next delta. It grows by one with each delta, across generations and leaders.
    pub delta: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeltaPositionText {
    epoch: String,
    revision: u64,
    head: String,
    delta: u64,
}

impl From<DeltaPosition> for DeltaPositionText {
    fn from(DeltaPosition { position: Position { epoch, revision, head }, delta }: DeltaPosition) -> Self {
        Self { epoch: epoch.to_string(), revision: revision.0, head: head.to_string(), delta }
    }
}

impl TryFrom<DeltaPositionText> for DeltaPosition {
    type Error = &'static str;

    fn try_from(text: DeltaPositionText) -> Result<Self, Self::Error> {
        let epoch = text.epoch.parse().map_err(|_| "not an epoch")?;
        let head = text.head.parse().map_err(|_| "not a chain hash")?;
        Ok(Self { position: Position { epoch, revision: Revision(text.revision), head }, delta: text.delta })
    }
}

impl Head {
    /// The head of this source; `None` before the first leader has a table, or when it can't be read.
    pub fn read(host: &dyn Host, store: &SharedStore) -> Option<Self> {
        let (bytes, _) = host.shared(&store.head())?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Replaces a head of the same term or an older one.
    pub fn write(&self, host: &dyn Host, store: &SharedStore) -> Result<(), LeaderDeposed> {
        let name = store.head();
        let before = host.shared(&name);
        let current = before.as_ref().and_then(|(bytes, _)| serde_json::from_slice::<Self>(bytes).ok());
        if current.is_some_and(|current| current.term > self.term) {
            return Err(LeaderDeposed);
        }
        let bytes = serde_json::to_vec(self).map_err(|_| LeaderDeposed)?;
        if host.set_shared(&name, &bytes, before.map(|(_, cas)| cas)) { Ok(()) } else { Err(LeaderDeposed) }
    }
}
