//! Compaction of the log: how much of it is kept, and when the rest is dropped.

use policy::Revision;

use super::Feed;
use crate::store::StoreError;

/// The log is compacted when it has grown by one part in this many, so that it happens rarely and removes few rows at a
/// time.
const PART: u64 = 10;

impl Feed {
    /// Compacts the log whenever it has grown by a tenth since it was last compacted, until the service ends.
    pub async fn compact_log(self) {
        let (mut head, mut ending) = (self.store.head(), self.ending.clone());
        loop {
            let due = head.borrow_and_update().revision.0.saturating_add(self.log_revisions / PART);
            tokio::select! {
                moved = head.wait_for(|head| head.revision.0 >= due) => if moved.is_err() { return },
                _ = ending.wait_for(|ending| *ending) => return,
            }
            // The store has logged the cause; the next time tries again.
            let _ = self.compact().await;
        }
    }

    /// Drops old changes from the log. Keeps the newest revisions, and those that an edge needs after a snapshot that
    /// it may be loading.
    pub async fn compact(&self) -> Result<(), StoreError> {
        let newest = Revision(self.store.head().borrow().revision.0.saturating_sub(self.log_revisions));
        self.store.compact(self.snapshots.oldest_needed().map_or(newest, |needed| needed.min(newest))).await
    }
}
