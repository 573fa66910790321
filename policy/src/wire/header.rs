//! What every message starts with.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::reader::Reader;
use super::{EncodeError, MAX_MESSAGE_BYTES, WireError};
use crate::id::Epoch;
use crate::position::{ChainHash, Position, Revision};

/// The format that this code writes and reads.
pub const FORMAT: u16 = 1;

/// Distinguishes our responses from those of Envoy or a proxy.
const MAGIC: [u8; 8] = *b"LATCHKEY";

/// Bytes before the ones that the checksum covers: magic and checksum.
const UNCHECKED_BYTES: usize = 12;

/// What follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Delta = 1,
    Manifest = 2,
    Page = 3,
    /// Only between workers of one Envoy.
    PageLayout = 4,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    /// CRC-32/ISO-HDLC of all bytes after this field. Detects damage; TLS protects against attackers.
    checksum: U32,
    format: U16,
    kind: U16,
    /// Of the whole message.
    length: U32,
    epoch: [u8; 16],
    revision: U64,
    head: [u8; 32],
}

/// A message under construction: room for the header, then what is appended.
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    kind: Kind,
    position: Position,
}

impl Message {
    pub(super) fn new(kind: Kind, position: Position, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(size_of::<Header>().saturating_add(capacity));
        bytes.resize(size_of::<Header>(), 0);
        Self { bytes, kind, position }
    }

    /// Fills in the header.
    pub(super) fn seal(mut self) -> Result<Vec<u8>, EncodeError> {
        let length = u32::try_from(self.bytes.len()).map_err(|_| EncodeError::TooLarge)?;
        if self.bytes.len() > MAX_MESSAGE_BYTES {
            return Err(EncodeError::TooLarge);
        }
        let mut header = Header {
            magic: MAGIC,
            checksum: U32::ZERO,
            format: U16::new(FORMAT),
            kind: U16::new(self.kind as u16),
            length: U32::new(length),
            epoch: *self.position.epoch.as_bytes(),
            revision: U64::new(self.position.revision.0),
            head: self.position.head.0,
        };
        // `new` made room for the header, so none of these can be short.
        let (_, body) = self.bytes.split_at_checked(size_of::<Header>()).ok_or(EncodeError::TooLarge)?;
        header.checksum = U32::new(checksum_of(&header, body));
        header.write_to_prefix(&mut self.bytes).map_err(|_| EncodeError::TooLarge)?;
        Ok(self.bytes)
    }
}

fn checksum_of(header: &Header, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header.as_bytes().get(UNCHECKED_BYTES..).unwrap_or_default());
    hasher.update(body);
    hasher.finalize()
}

/// Opens a message if its magic, format, length, checksum and kind are right.
pub(super) fn open(message: &[u8], kind: Kind) -> Result<(Position, u32, Reader<'_>), WireError> {
    let mut reader = Reader::new(message);
    let header = reader.read::<Header>()?;
    if header.magic != MAGIC {
        return Err(WireError::NotOurs);
    }
    if header.format.get() != FORMAT {
        return Err(WireError::Format(header.format.get()));
    }
    if message.len() > MAX_MESSAGE_BYTES || usize::try_from(header.length.get()) != Ok(message.len()) {
        return Err(WireError::Length);
    }
    if header.checksum.get() != checksum_of(header, reader.rest()) {
        return Err(WireError::Checksum);
    }
    if header.kind.get() != kind as u16 {
        return Err(WireError::Kind);
    }
    let position = Position {
        epoch: Epoch::from_bytes(header.epoch),
        revision: Revision(header.revision.get()),
        head: ChainHash(header.head),
    };
    Ok((position, header.checksum.get(), reader))
}

/// True when the header is a delta's. The message may still be damaged.
pub(super) fn has_delta_header(message: &[u8]) -> bool {
    Reader::new(message)
        .read::<Header>()
        .is_ok_and(|header| header.magic == MAGIC && header.kind.get() == Kind::Delta as u16)
}
