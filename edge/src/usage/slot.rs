//! What is counted of one key in one hour.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use policy::decide::CODES;
use policy::protocol::usage::{HOUR_SECS, KeyUsage, SecretMark, SecretUse};
use policy::{Digest, KeyId, UnixSeconds};

/// A key in an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotName {
    pub key: KeyId,
    /// Hours since 1970.
    hour: i64,
}

/// Counts, and who used the key last.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    pub allowed: u64,
    /// As [`CODES`] are ordered.
    pub denied: [u32; CODES.len()],
    /// The current secret and the previous one, whichever came first.
    pub used: [Option<SecretUse>; 2],
    pub address: Option<IpAddr>,
    /// The period after the one that `address` is of; 0: of none.
    addressed: u32,
    /// A period, and how many denials were kept in it.
    kept: (u32, u8),
}

impl SlotName {
    pub fn of(key: KeyId, at: UnixSeconds) -> Self {
        Self { key, hour: at.0.div_euclid(HOUR_SECS) }
    }

    /// The start of its hour.
    pub fn hour(&self) -> UnixSeconds {
        UnixSeconds(self.hour.saturating_mul(HOUR_SECS))
    }
}

impl Hash for SlotName {
    /// The last half of an id is random, and nobody but the control plane makes ids.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [.., a, b, c, d, e, f, g, h] = *self.key.as_bytes();
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ self.hour.cast_unsigned());
    }
}

/// Spreads what is random already over all bits.
#[derive(Default)]
pub struct SlotHasher(u64);

impl Hasher for SlotHasher {
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

impl Slot {
    pub fn allow(&mut self, digest: &Digest, now: UnixSeconds) {
        self.allowed = self.allowed.saturating_add(1);
        let (secret, [first, second]) = (SecretMark::of(digest), &mut self.used);
        let is_mine = |used: &Option<SecretUse>| used.is_none_or(|own| own.secret == secret);
        let used = match (is_mine(first), is_mine(second)) {
            (true, _) => first,
            (false, true) => second,
            // A third one within an hour: the one that was used less lately makes room.
            (false, false) if first.map(|own| own.at) < second.map(|own| own.at) => first,
            (false, false) => second,
        };
        *used = Some(SecretUse { secret, at: now.max(used.map_or(now, |own| own.at)) });
    }

    pub fn deny(&mut self, code: &str) {
        if let Some((count, _)) = self.denied.iter_mut().zip(CODES).find(|(_, own)| *own == code) {
            *count = count.saturating_add(1);
        }
    }

    pub fn has_address_of(&self, period: u32) -> bool {
        self.addressed == period.wrapping_add(1)
    }

    pub fn came_from(&mut self, address: Option<IpAddr>, period: u32) {
        self.address = address.or(self.address);
        self.addressed = period.wrapping_add(1);
    }

    /// Whether a denial is one of the first so many of a period; counts it as kept.
    pub fn keeps_denial(&mut self, period: u32, most: u8) -> bool {
        let (own, kept) = self.kept;
        let kept = if own == period { kept } else { 0 };
        if kept >= most {
            return false;
        }
        self.kept = (period, kept.saturating_add(1));
        true
    }

    /// The slot's counts, to be reported under its name.
    pub fn report(self, name: SlotName) -> KeyUsage {
        let denied = CODES.into_iter().zip(self.denied).filter(|(_, count)| *count > 0);
        KeyUsage {
            key: name.key,
            hour: name.hour(),
            allowed: self.allowed,
            denied: denied.map(|(code, count)| (code.into(), count.into())).collect(),
            used: self.used.into_iter().flatten().collect(),
            address: self.address,
        }
    }
}
