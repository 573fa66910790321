//! Entries of batches that are not counted, and why.

/// Why an entry is left out. The rest of its batch counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// No workspace has such a key, or it was deleted.
    UnknownKey,
    /// It is older than the hours that are accepted.
    Old,
    /// It is further in the future than an honest clock may be ahead.
    Ahead,
    /// It can't be read, or has a value that no worker sends.
    Malformed,
    /// The batch has more than a worker sends.
    Surplus,
}

impl LeftOut {
    pub(crate) const ALL: [Self; 5] = [Self::UnknownKey, Self::Old, Self::Ahead, Self::Malformed, Self::Surplus];

    /// The label in the metric.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown-key",
            Self::Old => "old",
            Self::Ahead => "ahead",
            Self::Malformed => "malformed",
            Self::Surplus => "surplus",
        }
    }
}

/// How many entries were left out, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOutCounts([u64; LeftOut::ALL.len()]);

impl LeftOutCounts {
    pub(crate) fn add(&mut self, why: LeftOut, more: u64) {
        if let Some((count, _)) = self.0.iter_mut().zip(LeftOut::ALL).find(|(_, own)| *own == why) {
            *count = count.saturating_add(more);
        }
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        other.each().for_each(|(why, more)| self.add(why, more));
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = (LeftOut, u64)> {
        LeftOut::ALL.into_iter().zip(self.0)
    }
}
