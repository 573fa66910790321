//! Usage reports: when a worker sends a batch, and how it handles the responses.

use policy::protocol::timing::{USAGE_INTERVAL_MS, USAGE_TIMEOUT_MS};
use policy::protocol::usage::{MAX_KEYS, UsageBatch};

use super::Usage;
use crate::keys::Clocks;

/// Sends one worker's batches: one at a time, each again until it is acknowledged.
#[derive(Default)]
pub struct UsageReporter {
    /// Random, and constant for the life of this VM. With the sequence it is a batch's idempotency key.
    worker: Option<String>,
    sequence: u64,
    /// The batch that is sent until it is acknowledged.
    pending: Option<UsageBatch>,
    sent_ms: Option<u64>,
    due_ms: Option<u64>,
}

/// The outcome of sending a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// The control plane has acknowledged it.
    Acknowledged,
    /// It will be sent again.
    Retry,
    /// The control plane will never accept it.
    Refused(u16),
}

impl UsageReporter {
    /// The batch that is due now, if there is one. The caller sends it, then calls [`Self::answered`] once. `random` is
    /// for this worker's id, and spreads the reports of many workers over the interval.
    pub fn due(
        &mut self,
        usage: &Usage,
        (edge, instance): (&str, &str),
        now: Clocks,
        random: impl FnOnce() -> Option<[u8; 16]>,
    ) -> Option<&UsageBatch> {
        let now_ms = now.monotonic_ms;
        let Some(worker) = &self.worker else {
            let bytes = random()?;
            let [.., chance] = bytes;
            self.worker = Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
            self.due_ms = Some(now_ms.saturating_add(u64::from(chance).saturating_mul(USAGE_INTERVAL_MS) / 256));
            return None;
        };
        // Envoy reports the end of each call, except when the context that sent it has ended: hence the deadline.
        self.sent_ms.take_if(|sent| now_ms.saturating_sub(*sent) > USAGE_TIMEOUT_MS.saturating_mul(2));
        if self.sent_ms.is_some() || self.due_ms.is_some_and(|due| now_ms < due) {
            return None;
        }
        self.due_ms = Some(now_ms.saturating_add(USAGE_INTERVAL_MS));
        usage.next_period();
        if self.pending.is_none() {
            let counts = usage.take()?;
            self.sequence = self.sequence.saturating_add(1);
            self.pending = Some(UsageBatch {
                edge: edge.to_owned(),
                instance: instance.to_owned(),
                worker: worker.clone(),
                sequence: self.sequence,
                ..counts
            });
        }
        self.sent_ms = Some(now_ms);
        self.pending.as_ref()
    }

    /// The response's status, `None` without a response. `instance` is the current id of this Envoy.
    pub fn answered(&mut self, usage: &Usage, instance: Option<&str>, status: Option<u16>) -> BatchOutcome {
        self.sent_ms = None;
        match status {
            Some(200) => {
                // After a full batch, the next one is due at once.
                if self.pending.take().is_some_and(|batch| batch.keys.len() == MAX_KEYS) {
                    self.due_ms = None;
                }
                BatchOutcome::Acknowledged
            }
            Some(status @ (400 | 413 | 422)) => {
                if let Some(batch) = self.pending.take() {
                    usage.drop_batch(&batch);
                }
                BatchOutcome::Refused(status)
            }
            // The control plane no longer has the instance of this batch.
            Some(404) => {
                if let (Some(batch), Some(instance)) = (&mut self.pending, instance) {
                    instance.clone_into(&mut batch.instance);
                }
                BatchOutcome::Retry
            }
            Some(_) | None => BatchOutcome::Retry,
        }
    }

    /// The answer to the call in flight will never arrive.
    pub fn abandon(&mut self) {
        self.sent_ms = None;
    }
}
