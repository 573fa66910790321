//! The body of one revision: the operations that edges apply.

use zerocopy::little_endian::{U16, U32};

use super::manifest::push_name;
use super::reader::Reader;
use super::record::{KeyRecord, MAX_SCOPE_NUMBER, RecordView};
use super::{EncodeError, WireError};
use crate::digest::Digest;
use crate::environment::Environment;
use crate::scope::Scope;

/// One operation of a change. A change that doesn't concern edges, like a new name, has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// This is now the record of its digest, whether there was one or not.
    Upsert(KeyRecord),
    /// The digest is unknown from now on.
    Remove(Digest),
    /// From now on this number means this scope.
    DefineScope {
        /// At most 32,767, because a grant has 15 bits for it.
        number: u16,
        /// The only scope that has this number in the epoch.
        scope: Scope,
    },
    /// From now on this number means this environment.
    DefineEnvironment {
        /// As in [`KeyRecord::environment`].
        number: u8,
        /// The only environment that has this number in the epoch.
        environment: Environment,
    },
}

const UPSERT: u8 = 1;
const REMOVE: u8 = 2;
const DEFINE_SCOPE: u8 = 3;
const DEFINE_ENVIRONMENT: u8 = 4;

/// The body of a revision with these operations, in their order.
pub fn encode_change(ops: &[Op]) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    for op in ops {
        match op {
            Op::Upsert(record) => {
                let mut standalone = Vec::new();
                record.encode(&mut standalone)?;
                bytes.push(UPSERT);
                let length = u32::try_from(standalone.len()).map_err(|_| EncodeError::TooLarge)?;
                bytes.extend_from_slice(&length.to_le_bytes());
                bytes.extend_from_slice(&standalone);
            }
            Op::Remove(digest) => {
                bytes.push(REMOVE);
                bytes.extend_from_slice(&digest.0);
            }
            Op::DefineScope { number, scope } => {
                if *number > MAX_SCOPE_NUMBER {
                    return Err(EncodeError::Number);
                }
                bytes.push(DEFINE_SCOPE);
                bytes.extend_from_slice(&number.to_le_bytes());
                push_name(&mut bytes, scope.as_str())?;
            }
            Op::DefineEnvironment { number, environment } => {
                bytes.push(DEFINE_ENVIRONMENT);
                bytes.push(*number);
                push_name(&mut bytes, environment.as_str())?;
            }
        }
    }
    Ok(bytes)
}

/// An operation read in place.
pub(crate) enum OpView<'a> {
    /// The bytes of a checked standalone record.
    Upsert(&'a [u8]),
    Remove(Digest),
    DefineScope(u16, Scope),
    DefineEnvironment(u8, Environment),
}

impl<'a> OpView<'a> {
    /// Reads all operations of a body; if one is unknown, the whole body is refused.
    pub(super) fn read_all(body: &'a [u8], into: &mut Vec<Self>) -> Result<(), WireError> {
        let mut reader = Reader::new(body);
        while !reader.is_empty() {
            into.push(Self::read(&mut reader)?);
        }
        Ok(())
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        match reader.byte()? {
            UPSERT => {
                let length = usize::try_from(reader.read::<U32>()?.get()).map_err(|_| WireError::Length)?;
                let standalone = reader.read_many::<u8>(length)?;
                RecordView::standalone(standalone)?.check()?;
                Ok(Self::Upsert(standalone))
            }
            REMOVE => Ok(Self::Remove(Digest(*reader.read()?))),
            DEFINE_SCOPE => {
                let number = reader.read::<U16>()?.get();
                Ok(Self::DefineScope(number, reader.short_text()?.parse().map_err(|_| WireError::Content)?))
            }
            DEFINE_ENVIRONMENT => {
                let number = reader.byte()?;
                Ok(Self::DefineEnvironment(number, reader.short_text()?.parse().map_err(|_| WireError::Content)?))
            }
            _ => Err(WireError::Content),
        }
    }
}
