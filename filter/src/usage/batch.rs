//! A batch of usage, as the control plane reads it: `docs/feed-format.md`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use policy::decide::CODES;
use policy::{KeyId, UnixSeconds};
use serde::Serialize;

use super::denials::Denial;
use super::slot::{Slot, SlotName};

/// Says which batch it is, and what was counted. Sent again and again as it is until it is answered.
#[derive(Clone, Debug, Serialize)]
pub struct Batch {
    pub edge: String,
    pub instance: String,
    pub worker: String,
    pub sequence: u64,
    #[serde(flatten)]
    pub content: Content,
}

/// What was counted since the batch before.
#[derive(Clone, Debug, Serialize)]
pub struct Content {
    pub keys: Vec<Counts>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denials: Vec<Denial>,
    /// Denials without a right secret.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub denied: BTreeMap<&'static str, u64>,
    pub dropped: Dropped,
    /// There may be more than went into it.
    #[serde(skip)]
    pub is_full: bool,
}

/// What found no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    pub requests: u64,
    pub denials: u64,
}

/// One key in one hour.
#[derive(Clone, Debug, Serialize)]
pub struct Counts {
    key: KeyId,
    /// Its start, in seconds since 1970.
    hour: i64,
    allowed: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    denied: BTreeMap<&'static str, u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    used: Vec<Use>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip)]
    pub requests: u64,
}

/// A secret, by the first 8 hexadecimal digits of its digest, and when it was allowed last.
#[derive(Clone, Debug, Serialize)]
struct Use {
    secret: String,
    at: UnixSeconds,
}

impl Content {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.denials.is_empty() && self.denied.is_empty() && self.dropped == Dropped::default()
    }

    /// All requests of keys that it stands for.
    pub fn requests(&self) -> u64 {
        self.keys.iter().fold(0, |sum, counts| counts.requests.saturating_add(sum))
    }
}

impl From<(SlotName, Slot)> for Counts {
    fn from((name, slot): (SlotName, Slot)) -> Self {
        let of = |(mark, at)| Use { secret: format!("{:08x}", u32::from_be_bytes(mark)), at };
        Self {
            key: name.key,
            hour: name.hour(),
            allowed: slot.allowed,
            denied: CODES.into_iter().zip(slot.denied).filter(|(_, count)| *count > 0).collect(),
            used: slot.used.into_iter().flatten().map(of).collect(),
            address: slot.address,
            requests: slot.requests(),
        }
    }
}
