//! The staleness bound of an instance.

/// How long an instance continues to decide without contact to the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StalenessBound {
    Secs(u64),
    /// It never denies by itself. Larger than any other.
    Never,
}

impl StalenessBound {
    /// The bound that a message states; [`Self::Never`] if it states none.
    pub fn of(max_staleness_secs: Option<u64>) -> Self {
        max_staleness_secs.map_or(Self::Never, Self::Secs)
    }
}
