//! Counters and gauges of an edge; none has a label that a client can choose.

use std::collections::BTreeMap;

use crate::host::Host;

/// Ids of the metrics, defined once a worker: Envoy frees none.
pub struct Metrics {
    verdicts: BTreeMap<&'static str, u32>,
    revision: u32,
    keys: u32,
}

/// What a request can end as, in the words of `wasm.latchkey_verdict` without its `denied:`.
const VERDICTS: [&str; 17] = [
    "allowed",
    "public",
    "missing-key",
    "multiple-keys",
    "malformed-key",
    "wrong-environment",
    "not-ready",
    "stale",
    "unknown-key",
    "rotated-key",
    "inactive-key",
    "expired-key",
    "address-not-allowed",
    "bad-path",
    "no-route-rule",
    "wrong-workspace",
    "missing-scope",
];

impl Metrics {
    /// Defines all metrics.
    pub fn define(host: &dyn Host) -> Self {
        let counter = |verdict| (verdict, host.define_counter(&format!("latchkey_requests_total.verdict={verdict}")));
        Self {
            verdicts: VERDICTS.into_iter().map(counter).collect(),
            revision: host.define_gauge("latchkey_revision"),
            keys: host.define_gauge("latchkey_keys"),
        }
    }

    /// Counts a request that ended so.
    pub fn count(&self, host: &dyn Host, verdict: &str) {
        if let Some(counter) = self.verdicts.get(verdict) {
            host.add(*counter, 1);
        }
    }

    /// The table that this worker serves by now.
    pub fn serving(&self, host: &dyn Host, revision: u64, keys: u64) {
        host.record(self.revision, revision);
        host.record(self.keys, keys);
    }
}
