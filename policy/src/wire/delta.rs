//! The changes between two revisions, each chained to the one before.

use zerocopy::little_endian::{U32, U64};

use super::change::OpView;
use super::header::{Kind, Message, has_delta_header, open};
use super::{EncodeError, WireError};
use crate::position::{Position, Revision};

/// The message that leads from `from` to `to`: the bodies of all revisions after `from` up to `to`, in order.
pub fn encode_delta(from: Revision, to: Position, bodies: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, EncodeError> {
    let size: usize = bodies.iter().map(|body| body.as_ref().len().saturating_add(4)).sum();
    let mut message = Message::new(Kind::Delta, to, size.saturating_add(8));
    message.bytes.extend_from_slice(&from.0.to_le_bytes());
    for body in bodies {
        let body = body.as_ref();
        let length = u32::try_from(body.len()).map_err(|_| EncodeError::TooLarge)?;
        message.bytes.extend_from_slice(&length.to_le_bytes());
        message.bytes.extend_from_slice(body);
    }
    message.seal()
}

/// A received delta whose chain was verified against the table it is for.
pub struct Delta<'a> {
    pub(crate) to: Position,
    pub(crate) ops: Vec<OpView<'a>>,
}

impl<'a> Delta<'a> {
    /// Reads a delta for a table at `position`, as a whole or not at all: each operation must be known, and the chain
    /// must end in the hash that the delta contains.
    pub fn decode(message: &'a [u8], position: Position) -> Result<Self, WireError> {
        let (to, _, mut reader) = open(message, Kind::Delta)?;
        let from = Revision(reader.read::<U64>()?.get());
        if from != position.revision || to.epoch != position.epoch {
            return Err(WireError::Position);
        }
        let mut reached = position;
        let mut ops = Vec::new();
        while !reader.is_empty() {
            let length = usize::try_from(reader.read::<U32>()?.get()).map_err(|_| WireError::Length)?;
            let body = reader.read_many::<u8>(length)?;
            OpView::read_all(body, &mut ops)?;
            reached = reached.then(body).ok_or(WireError::Position)?;
        }
        if reached == to { Ok(Self { to, ops }) } else { Err(WireError::Chain) }
    }

    /// True when the header is a delta's; otherwise the message may be a manifest.
    pub fn is_delta(message: &[u8]) -> bool {
        has_delta_header(message)
    }
}
