//! What a round of usage counts adds to a key, and the batches that it comes from.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use policy::UnixSeconds;
use policy::protocol::usage::SecretUse;
use serde::{Deserialize, Serialize};

use crate::store::db::domain::{from_json, json_param};
use crate::store::db::sql::{Column, FromColumn, Kind, Param, ToParam};

/// The outcome under which allowed requests are counted.
pub(crate) const ALLOWED: &str = "allowed";

/// Seconds of a day.
pub(crate) const DAY_SECS: i64 = 86_400;

/// The identity of a batch. A worker has one batch for each sequence, and sends the next one after the last is
/// answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BatchName {
    pub(crate) instance: String,
    pub(crate) worker: String,
    pub(crate) sequence: u64,
}

/// A request with a valid secret that was denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Denial {
    pub(crate) code: String,
    pub(crate) address: Option<IpAddr>,
    pub(crate) at: UnixSeconds,
    pub(crate) method: String,
    /// Without its query.
    pub(crate) path: String,
}

/// The kept denials of a key, as JSON.
impl ToParam for Vec<Denial> {
    const KIND: Kind = Kind::Text;

    fn to_param(&self) -> Param<'_> {
        json_param(self)
    }
}

impl FromColumn for Vec<Denial> {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        from_json(column)
    }
}

/// The number of latest denials that are kept for a key.
pub(crate) const MAX_KEPT_DENIALS: usize = 20;

/// Secrets of a key whose use is distinguished in a round: a key has two at most, and may be rotated during the round.
const MAX_SECRETS: usize = 4;

/// The usage to add to one key.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyDelta {
    /// The number of entries that were merged into it.
    pub(crate) entries: u64,
    /// By the start of their hour and outcome.
    pub(crate) counts: BTreeMap<(UnixSeconds, &'static str), u64>,
    pub(crate) used: Vec<SecretUse>,
    /// The last use that named an address.
    pub(crate) last: Option<(UnixSeconds, IpAddr)>,
    /// At most [`MAX_KEPT_DENIALS`], newest first.
    pub(crate) denials: Vec<Denial>,
}

impl KeyDelta {
    pub(crate) fn add_count(&mut self, hour: UnixSeconds, outcome: &'static str, more: u64) {
        if more == 0 {
            return;
        }
        let count = self.counts.entry((hour, outcome)).or_default();
        *count = count.saturating_add(more);
    }

    pub(crate) fn add_use(&mut self, secret_use: SecretUse) {
        match self.used.iter_mut().find(|own| own.secret == secret_use.secret) {
            Some(own) => own.at = own.at.max(secret_use.at),
            None => {
                self.used.push(secret_use);
                self.used.sort_by_key(|own| Reverse(own.at));
                self.used.truncate(MAX_SECRETS);
            }
        }
    }

    pub(crate) fn add_denial(&mut self, denial: Denial) {
        let at = self.denials.partition_point(|own| own.at > denial.at);
        self.denials.insert(at, denial);
        self.denials.truncate(MAX_KEPT_DENIALS);
    }
}
