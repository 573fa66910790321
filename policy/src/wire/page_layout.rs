//! The layout of a worker's table: its pages, for another worker that copies them.
//!
//! All pages of a snapshot are selected by the same number of bits. An edge splits pages that grow, one by one.

use zerocopy::little_endian::U32;

use super::header::{Kind, Message, open};
use super::manifest::Catalogue;
use super::page_id::{MAX_SPLIT_BITS, PageId};
use super::{EncodeError, WireError};
use crate::position::Position;

/// The pages of a worker's table, which have at least all changes up to a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageLayout {
    /// The deltas after it complete the pages, which may already contain some of their changes.
    pub position: Position,
    /// What the numbers in the pages' records mean.
    pub catalogue: Catalogue,
    /// In order; each digest belongs to one.
    pub pages: Vec<PageId>,
}

impl PageLayout {
    /// Reads what [`Self::encode`] wrote: each digest must belong to one page.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let (position, _, mut reader) = open(message, Kind::PageLayout)?;
        let count = usize::try_from(reader.read::<U32>()?.get()).map_err(|_| WireError::Length)?;
        let (mut pages, mut end) = (Vec::with_capacity(count.min(message.len())), 0_u128);
        for bits in reader.read_many::<u8>(count)?.iter().copied() {
            // Each begins where the one before ends.
            let shift =
                64_u32.checked_sub(u32::from(bits)).filter(|_| bits <= MAX_SPLIT_BITS).ok_or(WireError::Content)?;
            let number = usize::try_from(end >> shift).map_err(|_| WireError::Content)?;
            let page = PageId::new(bits, number).ok_or(WireError::Content)?;
            if u128::from(page.first()) != end {
                return Err(WireError::Content);
            }
            end = page.end();
            pages.push(page);
        }
        let catalogue = Catalogue::read(&mut reader)?;
        match (end == 1 << 64, reader.is_empty()) {
            (true, true) => Ok(Self { position, catalogue, pages }),
            (false, _) => Err(WireError::Content),
            (true, false) => Err(WireError::Length),
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut message = Message::new(Kind::PageLayout, self.position, self.pages.len());
        let count = u32::try_from(self.pages.len()).map_err(|_| EncodeError::TooLarge)?;
        message.bytes.extend_from_slice(&count.to_le_bytes());
        message.bytes.extend(self.pages.iter().map(PageId::bits));
        self.catalogue.write(&mut message.bytes)?;
        message.seal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{start, test};

    fn pages_of(bits: &[u8]) -> Result<Vec<(u8, u32)>, WireError> {
        let mut message = Message::new(Kind::PageLayout, start(), bits.len());
        message.bytes.extend_from_slice(&u32::try_from(bits.len()).unwrap().to_le_bytes());
        message.bytes.extend_from_slice(bits);
        Catalogue::default().write(&mut message.bytes).unwrap();
        let decoded = PageLayout::decode(&message.seal().unwrap())?;
        assert_eq!(PageLayout::decode(&decoded.encode().unwrap()), Ok(decoded.clone()));
        Ok(decoded.pages.iter().map(|page| (page.bits(), page.number())).collect())
    }

    #[test]
    fn pages_of_any_size_follow_each_other() {
        assert_eq!(pages_of(&[0]), Ok(vec![(0, 0)]));
        assert_eq!(pages_of(&[1, 2, 3, 3]), Ok(vec![(1, 0), (2, 2), (3, 6), (3, 7)]));
    }

    #[test]
    fn pages_that_leave_digests_out_or_have_them_twice_are_refused() {
        for bits in [&[][..], &[1], &[1, 2], &[0, 0], &[2, 1, 2], &[1, 1, 1], &[33], &[64], &[255], &[1, 2, 2, 32]] {
            assert_eq!(pages_of(bits), Err(WireError::Content), "{bits:?}");
        }
    }

    #[test]
    fn a_truncated_or_longer_message_is_refused() {
        let pages = vec![PageId::new(0, 0).unwrap()];
        let whole = PageLayout { position: start(), catalogue: Catalogue::default(), pages };
        let message = whole.encode().unwrap();
        for length in 0..message.len() {
            let mut short = message[..length].to_vec();
            crate::fixtures::reseal(&mut short);
            assert!(PageLayout::decode(&short).is_err(), "{length} bytes");
        }
        let mut long = [message, vec![0]].concat();
        crate::fixtures::reseal(&mut long);
        assert_eq!(PageLayout::decode(&long), Err(WireError::Length));
    }
}
