//! Reading from the front of received bytes.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::WireError;

/// The rest of a message. Each read takes from the front, or fails because the message ends early.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// The next bytes as a `T`, in place.
    pub(super) fn read<T>(&mut self) -> Result<&'a T, WireError>
    where
        T: FromBytes + Immutable + KnownLayout + Unaligned,
    {
        let (value, rest) = T::ref_from_prefix(self.rest).map_err(|_| WireError::Truncated)?;
        self.rest = rest;
        Ok(value)
    }

    /// The next `count` `T`s, in place.
    pub(super) fn read_many<T>(&mut self, count: usize) -> Result<&'a [T], WireError>
    where
        T: FromBytes + Immutable + KnownLayout + Unaligned,
    {
        let (values, rest) = <[T]>::ref_from_prefix_with_elems(self.rest, count).map_err(|_| WireError::Truncated)?;
        self.rest = rest;
        Ok(values)
    }

    pub(super) fn byte(&mut self) -> Result<u8, WireError> {
        self.read::<u8>().copied()
    }

    /// A length in one byte, then that many bytes.
    pub(super) fn short_text(&mut self) -> Result<&'a str, WireError> {
        let length = self.byte()?;
        let bytes = self.read_many::<u8>(usize::from(length))?;
        str::from_utf8(bytes).map_err(|_| WireError::Content)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }
}
