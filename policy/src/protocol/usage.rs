//! Usage: what a worker counted, by key and hour, and the latest denials of right secrets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::KeyId;
use crate::time::UnixSeconds;

/// The most entries of one batch's `keys`.
pub const MAX_KEYS: usize = 1_000;
/// The most denials of one batch.
pub const MAX_DENIALS: usize = 64;

/// The most bytes of a denial's method.
pub const MAX_METHOD: usize = 16;
/// The most bytes of a denial's path.
pub const MAX_PATH: usize = 256;

/// Seconds of an hour, the unit of time in which requests are counted.
pub const HOUR_SECS: i64 = 3_600;

/// The body that a worker posts. It is retried unchanged until it is answered, so its sequence is an idempotency key.
///
/// The type parameters are the kinds of entries. A worker writes typed entries; the control plane reads each entry by
/// itself, so that an invalid one doesn't invalidate the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "K: Deserialize<'de>, D: Deserialize<'de>, C: Deserialize<'de>, L: Deserialize<'de>"))]
pub struct UsageBatch<K = KeyUsage, D = DenialReport, C = u64, L = DroppedUsage> {
    /// The operator's name for the gateway; the edge token must be valid for it.
    pub edge: String,
    /// The id of the Envoy process. After a 404, a retry has the current id instead.
    pub instance: String,
    /// A random name that the worker keeps for as long as its VM lives.
    pub worker: String,
    /// Grows by one with each batch of a worker, from 1 on.
    pub sequence: u64,
    /// Counts, each of one key in one hour. The control plane skips entries beyond [`MAX_KEYS`].
    #[serde(default = "Vec::new")]
    pub keys: Vec<K>,
    /// Details of the latest denials, which `keys` counts too. The control plane skips entries beyond [`MAX_DENIALS`].
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub denials: Vec<D>,
    /// Denials without a right secret, by code.
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub denied: BTreeMap<Cow<'static, str>, C>,
    /// What was dropped since the batch before; `None` counts as nothing.
    pub dropped: Option<L>,
}

/// Requests of one key in one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUsage {
    /// The key whose secret was right.
    pub key: KeyId,
    /// An instant in that hour; a worker writes its start.
    pub hour: UnixSeconds,
    /// Allowed requests since the batch before, at most 2^40.
    #[serde(default)]
    pub allowed: u64,
    /// By code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub denied: BTreeMap<Cow<'static, str>, u64>,
    /// The secrets that were allowed, each once. A worker reports at most 2; an entry with more than 4 is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<SecretUse>,
    /// The client address of its last use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// When a secret was allowed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// Which of the key's secrets it was.
    pub secret: SecretMark,
    /// The instant of its last allowed request, by the edge's clock.
    pub at: UnixSeconds,
}

/// A request with a right secret that was denied. Holds no credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialReport {
    /// The key whose secret was right.
    pub key: KeyId,
    /// The reason's code: see [`DenyReason::code`](crate::DenyReason::code). A newer filter may have others.
    pub code: Cow<'static, str>,
    /// The client's address; `None` if it is unknown.
    pub address: Option<IpAddr>,
    /// The instant of the request, by the edge's clock.
    pub at: UnixSeconds,
    /// Visible ASCII, at most [`MAX_METHOD`] bytes.
    pub method: String,
    /// Without its query; visible ASCII, at most [`MAX_PATH`] bytes.
    pub path: String,
}

/// What was dropped: the worker's memory for usage was full, or the control plane refused a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedUsage {
    /// Requests in no entry of `keys`: there was no space for another key, or the control plane refused their batch.
    #[serde(default)]
    pub requests: u64,
    /// Details of denials that newer ones replaced, or that were in a refused batch. The requests themselves are counted in `keys`.
    #[serde(default)]
    pub denials: u64,
}

/// Distinguishes the current secret of a key from its previous one: the first bytes of its digest, as 8 hexadecimal
/// digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretMark(pub [u8; 4]);

/// A text that isn't 8 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a mark of a secret: expected 8 hexadecimal digits")]
pub struct ParseSecretMarkError;

impl SecretMark {
    /// The mark of the secret with this digest.
    pub fn of(Digest([a, b, c, d, ..]): &Digest) -> Self {
        Self([*a, *b, *c, *d])
    }
}

impl From<SecretMark> for String {
    fn from(SecretMark(bytes): SecretMark) -> Self {
        format!("{:08x}", u32::from_be_bytes(bytes))
    }
}

impl TryFrom<String> for SecretMark {
    type Error = ParseSecretMarkError;

    fn try_from(text: String) -> Result<Self, ParseSecretMarkError> {
        let is_mark = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u32::from_str_radix(&text, 16).ok().filter(|_| is_mark);
        number.map(|number| Self(number.to_be_bytes())).ok_or(ParseSecretMarkError)
    }
}

impl KeyUsage {
    /// All requests, allowed and denied.
    pub fn requests(&self) -> u64 {
        self.denied.values().fold(self.allowed, |sum, count| sum.saturating_add(*count))
    }
}
