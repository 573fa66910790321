//! Counters and gauges of an edge; none has a label that a client can choose.

use std::cell::Cell;
use std::collections::BTreeMap;

use policy::DenyReason;
use serde::{Deserialize, Serialize};

use crate::host::Host;

/// Ids of the metrics, defined once for each worker, since Envoy never frees any.
pub struct Metrics {
    verdicts: BTreeMap<&'static str, Counter>,
    revision: u32,
    keys: u32,
    age: u32,
    ready: u32,
    history_changes: u32,
    usage_dropped: u32,
}

/// A counter, and what was not added to Envoy's counter yet.
struct Counter {
    id: u32,
    pending: Cell<u64>,
}

/// The state of the keys in a worker, or in all workers of an Envoy together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The table's revision; 0 without a table.
    pub revision: u64,
    /// Digests in the table.
    pub keys: u64,
    /// Seconds since the request was sent whose answer confirmed the table.
    pub age_secs: u64,
    /// Whether requests are decided: there is a table that isn't stale.
    pub is_ready: bool,
}

/// Outcomes of a request besides denials.
const PASSES: [&str; 2] = ["allowed", "public"];

impl Metrics {
    /// Defines all metrics.
    pub fn define(host: &dyn Host) -> Self {
        // The values of `wasm.latchkey_verdict`, without the prefix `denied:`.
        let counter = |verdict| {
            let id = host.define_counter(&format!("latchkey_requests_total.verdict={verdict}"));
            (verdict, Counter { id, pending: Cell::new(0) })
        };
        Self {
            verdicts: PASSES.into_iter().chain(DenyReason::ALL.map(DenyReason::code)).map(counter).collect(),
            revision: host.define_gauge("latchkey_revision"),
            keys: host.define_gauge("latchkey_keys"),
            age: host.define_gauge("latchkey_age_seconds"),
            ready: host.define_gauge("latchkey_ready"),
            history_changes: host.define_counter("latchkey_history_changes_total"),
            usage_dropped: host.define_counter("latchkey_usage_dropped_total"),
        }
    }

    /// Counts a request with this verdict. Makes no host call: see [`Self::flush`].
    pub fn count(&self, verdict: &str) {
        if let Some(counter) = self.verdicts.get(verdict) {
            counter.pending.set(counter.pending.get().saturating_add(1));
        }
    }

    /// Adds the counts since the last flush to Envoy's counters.
    pub fn flush(&self, host: &dyn Host) {
        for counter in self.verdicts.values().filter(|counter| counter.pending.get() > 0) {
            host.add(counter.id, counter.pending.take());
        }
    }

    /// Counts how often the control plane's history differed from this edge's.
    pub fn count_history_changes(&self, host: &dyn Host, times: u64) {
        if times > 0 {
            host.add(self.history_changes, times);
        }
    }

    /// Counts requests that could not be counted by key, because there was no space.
    pub fn count_dropped_usage(&self, host: &dyn Host, requests: u64) {
        if requests > 0 {
            host.add(self.usage_dropped, requests);
        }
    }

    /// Sets the gauges.
    pub fn report(&self, host: &dyn Host, report: Report) {
        let Report { revision, keys, age_secs, is_ready } = report;
        host.record(self.revision, revision);
        host.record(self.keys, keys);
        host.record(self.age, age_secs);
        host.record(self.ready, u64::from(is_ready));
    }
}
