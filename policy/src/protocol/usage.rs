//! Usage: what a worker counted, by key and hour, and the latest denials of right secrets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::KeyId;
use crate::time::UnixSeconds;

/// The most entries of one batch: keys, and denials.
pub const MAX_KEYS: usize = 1_000;
pub const MAX_DENIALS: usize = 64;

/// The most bytes of a denial's method, and of its path.
pub const MAX_METHOD: usize = 16;
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
    pub edge: String,
    pub instance: String,
    pub worker: String,
    /// Grows by one with each batch of a worker, from 1 on.
    pub sequence: u64,
    #[serde(default = "Vec::new")]
    pub keys: Vec<K>,
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub denials: Vec<D>,
    /// Denials without a right secret, by code.
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub denied: BTreeMap<Cow<'static, str>, C>,
    pub dropped: Option<L>,
}

/// Requests of one key in one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUsage {
    pub key: KeyId,
    /// An instant in that hour; a worker writes its start.
    pub hour: UnixSeconds,
    #[serde(default)]
    pub allowed: u64,
    /// By code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub denied: BTreeMap<Cow<'static, str>, u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<SecretUse>,
    /// The client address of its last use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// When a secret was allowed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    pub secret: SecretMark,
    pub at: UnixSeconds,
}

/// A request with a right secret that was denied. Holds no credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialReport {
    pub key: KeyId,
    pub code: Cow<'static, str>,
    pub address: Option<IpAddr>,
    pub at: UnixSeconds,
    /// Visible ASCII, at most [`MAX_METHOD`] bytes.
    pub method: String,
    /// Without its query; visible ASCII, at most [`MAX_PATH`] bytes.
    pub path: String,
}

/// What was dropped because the worker's memory for usage was full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedUsage {
    #[serde(default)]
    pub requests: u64,
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
