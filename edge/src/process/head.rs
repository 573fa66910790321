//! The head: the position of the leader's table, and where another worker can begin or follow.

use policy::{Position, Revision};
use serde::{Deserialize, Serialize};

use super::shared_store::{Deposed, SharedStore};
use crate::host::Host;
use crate::keys::{Clocks, Heard};

/// What the leader publishes for all workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Of the leader that wrote it.
    pub term: u64,
    /// Grows with each snapshot. A worker with another generation starts again.
    pub generation: u64,
    /// The size of the ring buffer of this generation's deltas.
    pub slots: u64,
    /// Whether the pages and the deltas behind `base` are all there, for a worker that begins.
    pub is_complete: bool,
    /// All pages have the changes up to here; deltas lead on.
    pub base: Mark,
    /// Where the deltas lead to.
    pub to: Mark,
    /// When the request was sent whose answer confirmed `to`.
    pub vouched: Option<Clocks>,
    pub heard: Option<Heard>,
}

/// A position, and the number of the delta that leads on from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "MarkText", try_from = "MarkText")]
pub struct Mark {
    pub position: Position,
    pub delta: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkText {
    epoch: String,
    revision: u64,
    head: String,
    delta: u64,
}

impl From<Mark> for MarkText {
    fn from(Mark { position: Position { epoch, revision, head }, delta }: Mark) -> Self {
        Self { epoch: epoch.to_string(), revision: revision.0, head: head.to_string(), delta }
    }
}

impl TryFrom<MarkText> for Mark {
    type Error = &'static str;

    fn try_from(text: MarkText) -> Result<Self, Self::Error> {
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
    pub fn write(&self, host: &dyn Host, store: &SharedStore) -> Result<(), Deposed> {
        let name = store.head();
        let before = host.shared(&name);
        let theirs = before.as_ref().and_then(|(bytes, _)| serde_json::from_slice::<Self>(bytes).ok());
        if theirs.is_some_and(|theirs| theirs.term > self.term) {
            return Err(Deposed);
        }
        let bytes = serde_json::to_vec(self).map_err(|_| Deposed)?;
        if host.set_shared(&name, &bytes, before.map(|(_, cas)| cas)) { Ok(()) } else { Err(Deposed) }
    }
}
