//! When a worker reports usage, and what the answers mean.

use policy::protocol::timing::{USAGE_INTERVAL_MS, USAGE_TIMEOUT_MS};
use policy::protocol::usage::{MAX_KEYS, UsageBatch};

use super::Usage;
use crate::keys::Clocks;

/// Sends one worker's batches: one at a time, each until it is answered.
#[derive(Default)]
pub struct UsageReporter {
    /// Random, and this VM's for as long as it lives: with the sequence it makes a batch's idempotency key.
    worker: Option<String>,
    sequence: u64,
    frozen: Option<UsageBatch>,
    sent_ms: Option<u64>,
    due_ms: Option<u64>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// The batch counts.
    Counted,
    /// It is sent again.
    SentAgain,
    /// The control plane will never take it.
    Refused(u16),
}

impl UsageReporter {
    /// The batch that is to be sent now, if one is; the caller sends it, then hands in [`Self::answered`] once. `random` is for
    /// this worker's name, and for its own time among many.
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
        // Envoy reports each call's end; the deadline is for one whose context went away.
        self.sent_ms.take_if(|sent| now_ms.saturating_sub(*sent) > USAGE_TIMEOUT_MS.saturating_mul(2));
        if self.sent_ms.is_some() || self.due_ms.is_some_and(|due| now_ms < due) {
            return None;
        }
        self.due_ms = Some(now_ms.saturating_add(USAGE_INTERVAL_MS));
        usage.next_period();
        if self.frozen.is_none() {
            let counts = usage.take()?;
            self.sequence = self.sequence.saturating_add(1);
            self.frozen = Some(UsageBatch {
                edge: edge.to_owned(),
                instance: instance.to_owned(),
                worker: worker.clone(),
                sequence: self.sequence,
                ..counts
            });
        }
        self.sent_ms = Some(now_ms);
        self.frozen.as_ref()
    }

    /// The answer's status, `None` without one. `instance` is this process's now.
    pub fn answered(&mut self, usage: &Usage, instance: Option<&str>, status: Option<u16>) -> BatchOutcome {
        self.sent_ms = None;
        match status {
            Some(200) => {
                // A full batch has others behind it.
                if self.frozen.take().is_some_and(|batch| batch.keys.len() == MAX_KEYS) {
                    self.due_ms = None;
                }
                BatchOutcome::Counted
            }
            Some(status @ (400 | 413 | 422)) => {
                if let Some(batch) = self.frozen.take() {
                    usage.lose(&batch);
                }
                BatchOutcome::Refused(status)
            }
            // The control plane has forgotten the instance that it was counted for.
            Some(404) => {
                if let (Some(batch), Some(instance)) = (&mut self.frozen, instance) {
                    instance.clone_into(&mut batch.instance);
                }
                BatchOutcome::SentAgain
            }
            Some(_) | None => BatchOutcome::SentAgain,
        }
    }

    /// The call in flight will never be answered here.
    pub fn abandon(&mut self) {
        self.sent_ms = None;
    }
}
