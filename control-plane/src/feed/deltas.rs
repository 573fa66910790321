//! Deltas that were cut lately: a change wakes all edges at once, and most of them ask for the same one.

use std::collections::VecDeque;

use axum::body::Bytes;
use policy::Position;
use policy::wire::encode_delta;
use tokio::sync::Mutex;

use crate::store::{Since, Store, StoreError};

/// Deltas that are kept: edges that missed a few changes each ask for their own.
const KEPT: usize = 8;

/// The last few deltas. Whoever asks for one that is being cut waits for it.
#[derive(Default)]
pub(super) struct Deltas(Mutex<VecDeque<Cut>>);

struct Cut {
    from: Position,
    to: Position,
    bytes: Bytes,
}

pub(super) enum Found {
    Delta(Bytes),
    /// `from` is the head.
    Nothing,
    /// `from` isn't in our history, or no longer.
    Unknown,
}

impl Deltas {
    /// The delta that leads on from `from`, towards the head.
    pub(super) async fn find(&self, store: &Store, from: Position) -> Result<Found, StoreError> {
        let mut kept = self.0.lock().await;
        let head = *store.head().borrow();
        // One that ends before the head is as right, but would cost the edge another request.
        if let Some(cut) = kept.iter().find(|cut| cut.from == from && cut.to == head) {
            return Ok(Found::Delta(cut.bytes.clone()));
        }
        let (to, bodies) = match store.changes_since(from).await? {
            Since::Changes { to, bodies } => (to, bodies),
            Since::Nothing => return Ok(Found::Nothing),
            Since::Unknown => return Ok(Found::Unknown),
        };
        let bytes = encode_delta(from.revision, to, &bodies).map_err(|error| StoreError::Fault(error.to_string()))?;
        let bytes = Bytes::from(bytes);
        kept.truncate(KEPT - 1);
        kept.push_front(Cut { from, to, bytes: bytes.clone() });
        Ok(Found::Delta(bytes))
    }
}
