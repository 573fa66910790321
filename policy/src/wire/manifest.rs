//! The manifest of a snapshot: which pages it has, and what the numbers in their records mean.

use std::collections::BTreeMap;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{Kind, Message, open};
use super::page_id::MAX_PAGE_BITS;
use super::reader::Reader;
use super::record::MAX_SCOPE_NUMBER;
use super::{EncodeError, WireError};
use crate::environment::Environment;
use crate::position::Position;
use crate::scope::Scope;

/// What the numbers in records mean. Numbers are never reused in an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    scopes: BTreeMap<Scope, u16>,
    environments: BTreeMap<u8, Environment>,
}

impl Catalogue {
    /// The number of the scope with this name; `None` when no key can have it.
    pub fn scope_number(&self, name: &str) -> Option<u16> {
        self.scopes.get(name).copied()
    }

    /// The scope with this number.
    pub fn scope(&self, number: u16) -> Option<&Scope> {
        self.scopes.iter().find(|(_, own)| **own == number).map(|(scope, _)| scope)
    }

    /// True when `number` means `environment`. An unknown number means none.
    pub fn is_environment(&self, number: u8, environment: &Environment) -> bool {
        self.environments.get(&number) == Some(environment)
    }

    /// From now on `number` means `scope`. A repeat changes nothing.
    pub fn define_scope(&mut self, number: u16, scope: Scope) -> Result<(), IdTaken> {
        let mut others = self.scopes.iter().filter(|(own, taken)| (**own == scope) != (**taken == number));
        if number > MAX_SCOPE_NUMBER || others.next().is_some() {
            return Err(IdTaken);
        }
        self.scopes.insert(scope, number);
        Ok(())
    }

    /// From now on `number` means `environment`. A repeat changes nothing.
    pub fn define_environment(&mut self, number: u8, environment: Environment) -> Result<(), IdTaken> {
        let mut others = self.environments.iter().filter(|(taken, own)| (**own == environment) != (**taken == number));
        if others.next().is_some() {
            return Err(IdTaken);
        }
        self.environments.insert(number, environment);
        Ok(())
    }

    /// Reads what [`Self::write`] wrote.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut catalogue = Self::default();
        for _ in 0..reader.byte()? {
            let number = reader.byte()?;
            let name = reader.short_text()?;
            catalogue.define_environment(number, name.parse().map_err(|_| WireError::Content)?)?;
        }
        for _ in 0..reader.read::<U16>()?.get() {
            let number = reader.read::<U16>()?.get();
            let name = reader.short_text()?;
            catalogue.define_scope(number, name.parse().map_err(|_| WireError::Content)?)?;
        }
        Ok(catalogue)
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
        let Self { scopes, environments } = self;
        bytes.push(u8::try_from(environments.len()).map_err(|_| EncodeError::TooLarge)?);
        for (number, environment) in environments {
            bytes.push(*number);
            push_name(bytes, environment.as_str())?;
        }
        bytes.extend_from_slice(&u16::try_from(scopes.len()).map_err(|_| EncodeError::TooLarge)?.to_le_bytes());
        for (scope, number) in scopes {
            bytes.extend_from_slice(&number.to_le_bytes());
            push_name(bytes, scope.as_str())?;
        }
        Ok(())
    }
}

/// A number that already means something else, a name that already has another number, or a number too large for a
/// record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a number always means the same name, and a scope's number is at most {MAX_SCOPE_NUMBER}")]
pub struct IdTaken;

impl From<IdTaken> for WireError {
    fn from(_: IdTaken) -> Self {
        Self::Content
    }
}

impl From<IdTaken> for EncodeError {
    fn from(_: IdTaken) -> Self {
        Self::Number
    }
}

/// The manifest's entry for a page, so that no other page is accepted in its place.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PageSummary {
    /// How many records the page has.
    pub count: U32,
    /// Bytes of the page's message, its header included.
    pub length: U32,
    /// The CRC-32 in the page's header.
    pub checksum: U32,
}

/// The manifest of a snapshot at one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Where the snapshot was taken; all its pages have this position.
    pub position: Position,
    /// What the numbers in the pages' records mean.
    pub catalogue: Catalogue,
    /// How many leading bits of a digest select its page.
    pub page_bits: u8,
    /// Two to the power of `page_bits`.
    pub pages: Vec<PageSummary>,
}

impl Manifest {
    /// Reads a manifest. It has no keys, so everything but its list of pages is small.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let (position, _, mut reader) = open(message, Kind::Manifest)?;
        let page_bits = reader.byte()?;
        if page_bits > MAX_PAGE_BITS {
            return Err(WireError::Content);
        }
        let pages = reader.read_many::<PageSummary>(1 << page_bits)?.to_vec();
        let catalogue = Catalogue::read(&mut reader)?;
        if reader.is_empty() { Ok(Self { position, catalogue, page_bits, pages }) } else { Err(WireError::Length) }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut message = Message::new(Kind::Manifest, self.position, self.pages.as_bytes().len());
        message.bytes.push(self.page_bits);
        message.bytes.extend_from_slice(self.pages.as_bytes());
        self.catalogue.write(&mut message.bytes)?;
        message.seal()
    }
}

/// A length in one byte, then the name.
pub(super) fn push_name(bytes: &mut Vec<u8>, name: &str) -> Result<(), EncodeError> {
    bytes.push(u8::try_from(name.len()).map_err(|_| EncodeError::TooLarge)?);
    bytes.extend_from_slice(name.as_bytes());
    Ok(())
}
