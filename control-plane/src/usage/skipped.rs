//! Entries of batches that are skipped, and why.

/// Why an entry is skipped. The rest of its batch counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipReason {
    /// No workspace has such a key, or it was deleted.
    UnknownKey,
    /// It is older than the hours that are accepted.
    Old,
    /// It is further in the future than a clock may be ahead.
    Ahead,
    /// It can't be read, or has a value that no worker sends.
    Malformed,
    /// The batch has more than a worker sends.
    Surplus,
}

impl SkipReason {
    pub(crate) const ALL: [Self; 5] = [Self::UnknownKey, Self::Old, Self::Ahead, Self::Malformed, Self::Surplus];

    /// The label in the metric.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown-key",
            Self::Old => "old",
            Self::Ahead => "ahead",
            Self::Malformed => "malformed",
            Self::Surplus => "surplus",
        }
    }
}

/// How many entries were skipped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SkipCounts([u64; SkipReason::ALL.len()]);

impl SkipCounts {
    pub(crate) fn add(&mut self, why: SkipReason, more: u64) {
        if let Some((count, _)) = self.0.iter_mut().zip(SkipReason::ALL).find(|(_, own)| *own == why) {
            *count = count.saturating_add(more);
        }
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        other.each().for_each(|(why, more)| self.add(why, more));
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = (SkipReason, u64)> {
        SkipReason::ALL.into_iter().zip(self.0)
    }
}
