//! Denials, counted by their reason.

use std::borrow::Cow;
use std::collections::BTreeMap;

use policy::DenyReason;

/// A count for each reason. `N` is as small as its place needs it: a worker has thousands of them.
#[derive(Clone, Debug, Default)]
pub(super) struct DenialCounts<N>([N; DenyReason::ALL.len()]);

impl<N: Copy + Into<u64> + TryFrom<u64>> DenialCounts<N> {
    /// Counts a denial. A full count stays as it is.
    pub(super) fn add_one(&mut self, reason: DenyReason) {
        if let Some(count) = self.0.get_mut(reason.index())
            && let Ok(next) = N::try_from((*count).into().saturating_add(1))
        {
            *count = next;
        }
    }

    /// The counts by code in the format of a report, without those of 0.
    pub(super) fn by_code(self) -> BTreeMap<Cow<'static, str>, u64> {
        let counts = DenyReason::ALL.into_iter().zip(self.0.map(Into::into));
        counts.filter(|(_, count)| *count > 0).map(|(reason, count)| (reason.code().into(), count)).collect()
    }
}
