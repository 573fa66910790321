//! The configurations of one worker that use a source.

use std::collections::BTreeMap;

use policy::config::FeedMode;

/// The largest and the smallest staleness bound of several configurations, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// `None`: at least one configuration has no bound.
    pub(super) largest: Option<u64>,
    /// `None`: no configuration has a bound.
    pub(super) smallest: Option<u64>,
}

/// A root context: one configuration in one worker.
#[derive(Clone, Debug)]
pub struct Root {
    /// Envoy's id of the context. A newer one is larger.
    pub id: u32,
    /// The edge token; `None`: calls carry none. Calls carry that of the newest configuration only.
    pub token: Option<String>,
    /// The staleness bound; `None`: no table is ever stale.
    pub max_staleness_secs: Option<u64>,
    /// Who subscribes to the control plane. The newest configuration's value holds for the whole source.
    pub feed: FeedMode,
}

/// The live root contexts by their ids, the newest last.
#[derive(Default)]
pub(super) struct Configurations(BTreeMap<u32, Root>);

impl Configurations {
    pub(super) fn add(&mut self, root: Root) {
        self.0.insert(root.id, root);
    }

    pub(super) fn remove(&mut self, root: u32) {
        self.0.remove(&root);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn newest(&self) -> Option<&Root> {
        self.0.values().next_back()
    }

    pub(super) fn bounds(&self) -> Bounds {
        let bounds = || self.0.values().map(|root| root.max_staleness_secs);
        let largest = bounds().reduce(|one, other| one.zip(other).map(|(one, other)| one.max(other))).flatten();
        Bounds { largest, smallest: bounds().flatten().min() }
    }
}
