//! The counts of one key in one hour.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use policy::protocol::usage::{HOUR_SECS, KeyUsage, SecretMark, SecretUse};
use policy::{DenyReason, Digest, KeyId, UnixSeconds};

use super::denial_counts::DenialCounts;

/// A key and an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyHour {
    pub key: KeyId,
    /// Hours since 1970.
    hour: i64,
}

/// The counts, and the last use of each secret.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyHourCounts {
    pub allowed: u64,
    pub denied: DenialCounts<u32>,
    /// The last use of the current secret and of the previous one, in either order.
    pub used: [Option<SecretUse>; 2],
    pub address: Option<IpAddr>,
    /// The period of `address` plus one; 0: no address was read.
    address_period: u32,
    /// A period, and how many denials were stored in it.
    stored_denials: (u32, u8),
}

impl KeyHour {
    pub(super) fn of(key: KeyId, at: UnixSeconds) -> Self {
        Self { key, hour: at.0.div_euclid(HOUR_SECS) }
    }

    /// The start of the hour.
    pub(super) fn hour(&self) -> UnixSeconds {
        UnixSeconds(self.hour.saturating_mul(HOUR_SECS))
    }
}

impl Hash for KeyHour {
    /// The last half of an id is random, and only the control plane makes ids, so that no client can cause collisions.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [.., a, b, c, d, e, f, g, h] = *self.key.as_bytes();
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ self.hour.cast_unsigned());
    }
}

/// A cheap hasher for input that is random already.
#[derive(Default)]
pub(super) struct KeyHourHasher(u64);

impl Hasher for KeyHourHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte) ^ self.0);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (number ^ (number >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

impl KeyHourCounts {
    pub(super) fn allow(&mut self, digest: &Digest, now: UnixSeconds) {
        self.allowed = self.allowed.saturating_add(1);
        let (secret, [first, second]) = (SecretMark::of(digest), &mut self.used);
        let is_free_or_same = |used: &Option<SecretUse>| used.is_none_or(|own| own.secret == secret);
        let used = match (is_free_or_same(first), is_free_or_same(second)) {
            (true, _) => first,
            (false, true) => second,
            // A third secret within an hour replaces the one that was used least recently.
            (false, false) if first.map(|own| own.at) < second.map(|own| own.at) => first,
            (false, false) => second,
        };
        *used = Some(SecretUse { secret, at: now.max(used.map_or(now, |own| own.at)) });
    }

    pub(super) fn deny(&mut self, reason: DenyReason) {
        self.denied.add_one(reason);
    }

    pub(super) fn has_address_of(&self, period: u32) -> bool {
        self.address_period == period.wrapping_add(1)
    }

    pub(super) fn set_address(&mut self, address: Option<IpAddr>, period: u32) {
        self.address = address.or(self.address);
        self.address_period = period.wrapping_add(1);
    }

    /// Whether a denial is one of the first `max` ones of a period; if so, counts it as stored.
    pub(super) fn admit_denial(&mut self, period: u32, max: u8) -> bool {
        let (stored_period, count) = self.stored_denials;
        let count = if stored_period == period { count } else { 0 };
        if count >= max {
            return false;
        }
        self.stored_denials = (period, count.saturating_add(1));
        true
    }

    /// The counts of `name` in the format of a report.
    pub(super) fn report(self, name: KeyHour) -> KeyUsage {
        KeyUsage {
            key: name.key,
            hour: name.hour(),
            allowed: self.allowed,
            denied: self.denied.by_code(),
            used: self.used.into_iter().flatten().collect(),
            address: self.address,
        }
    }
}
