//! A table's position in the history of changes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::id::Epoch;

/// Grows by one with each change: a total order within an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one; `None` at the end of the range.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256 over all changes of an epoch up to a revision: two tables with equal chain hashes applied the same changes
/// in the same order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// The chain's first link: `SHA-256(epoch, first revision as u64 LE)`.
    pub fn first(epoch: Epoch, revision: Revision) -> Self {
        let mut hash = sha2::Sha256::new();
        hash.update(epoch.as_bytes());
        hash.update(revision.0.to_le_bytes());
        Self(hash.finalize().into())
    }

    /// The link after this one: `SHA-256(this, revision as u64 LE, change)`.
    pub fn then(self, revision: Revision, change: &[u8]) -> Self {
        let mut hash = sha2::Sha256::new();
        hash.update(self.0);
        hash.update(revision.0.to_le_bytes());
        hash.update(change);
        Self(hash.finalize().into())
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (halves, _) = self.0.as_chunks::<16>();
        halves.iter().try_for_each(|half| write!(f, "{:032x}", u128::from_be_bytes(*half)))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainHash({self})")
    }
}

/// A text that isn't 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a chain hash: expected 64 hexadecimal digits in lower case")]
pub struct ParseChainHashError;

impl FromStr for ChainHash {
    type Err = ParseChainHashError;

    fn from_str(text: &str) -> Result<Self, ParseChainHashError> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return Err(ParseChainHashError);
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = (nibble(*high)? << 4) | nibble(*low)?;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Result<u8, ParseChainHashError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        0..=b'/' | b':'..=b'`' | b'g'..=u8::MAX => Err(ParseChainHashError),
    }
}

/// An epoch, a revision in it, and the chain hash of that revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The history that `revision` counts in. Revisions of two epochs can't be compared.
    pub epoch: Epoch,
    /// That of the last change which is included.
    pub revision: Revision,
    /// The chain hash up to and including `revision`: it tells apart two histories that agree in all else.
    pub head: ChainHash,
}

impl Position {
    /// The start of an epoch, before its first change.
    pub fn first(epoch: Epoch, revision: Revision) -> Self {
        Self { epoch, revision, head: ChainHash::first(epoch, revision) }
    }

    /// The position after `change`; `None` when revisions have run out.
    pub fn then(self, change: &[u8]) -> Option<Self> {
        let revision = self.revision.next()?;
        Some(Self { epoch: self.epoch, revision, head: self.head.then(revision, change) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::test;

    fn epoch() -> Epoch {
        Epoch::from_bytes([7; 16])
    }

    #[test]
    fn chain_hash_text_and_bytes_are_inverses() {
        let head = ChainHash::first(epoch(), Revision(3));
        assert_eq!(head.to_string().parse(), Ok(head));
        assert!("".parse::<ChainHash>().is_err());
        assert!("g".repeat(64).parse::<ChainHash>().is_err());
        assert!("0".repeat(63).parse::<ChainHash>().is_err());
        assert!("0".repeat(66).parse::<ChainHash>().is_err());
    }

    #[test]
    fn the_chain_depends_on_epoch_order_and_content() {
        let start = Position::first(epoch(), Revision(0));
        let ab = start.then(b"a").and_then(|p| p.then(b"b")).unwrap();
        let ba = start.then(b"b").and_then(|p| p.then(b"a")).unwrap();
        assert_eq!(ab.revision, Revision(2));
        assert_ne!(ab.head, ba.head);
        let elsewhere = Position::first(Epoch::from_bytes([8; 16]), Revision(0));
        assert_ne!(elsewhere.then(b"a").unwrap().head, start.then(b"a").unwrap().head);
    }

    #[test]
    fn revisions_end_without_overflow() {
        let end = Position { revision: Revision(u64::MAX), ..Position::first(epoch(), Revision(0)) };
        assert_eq!(end.then(b""), None);
    }
}
