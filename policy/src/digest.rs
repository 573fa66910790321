//! SHA-256 of a secret: what is stored and looked up.

use std::fmt;
use std::hash::{Hash, Hasher};

use sha2::Digest as _;

/// SHA-256 of a secret's whole text. A secret holds 190 random bits, so a fast hash without salt keeps it safe.
///
/// Has no `Display` and hides its bytes in `Debug`: a digest is never logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `secret`. Costs one SHA-256 block for our own keys (at most 55 bytes).
    pub fn of(secret: &[u8]) -> Self {
        Self(sha2::Sha256::digest(secret).into())
    }

    /// The first 64 bits, which select a digest's page and the place to look in it.
    pub fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl Hash for Digest {
    /// A digest is already uniform, so its prefix serves as the hash.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.prefix());
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;
    use crate::fixtures::test;

    #[test]
    fn digest_is_sha_256() {
        // FIPS 180-4, the example message "abc".
        assert_eq!(Digest::of(b"abc").0[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(Digest::of(b"abc").prefix(), 0xba78_16bf_8f01_cfea);
    }

    #[test]
    fn debug_shows_no_byte_of_a_digest() {
        assert_eq!(format!("{:?}", Digest::of(b"abc")), "Digest(..)");
    }
}
