//! The id of a page: the range of digests that begin with the same bits.

use crate::digest::Digest;

/// The most leading bits that select a page of a snapshot, which then has 65,536 pages.
pub(crate) const MAX_PAGE_BITS: u8 = 16;

/// The most leading bits that select a page at an edge, which splits pages that grow.
pub(crate) const MAX_SPLIT_BITS: u8 = 32;

/// The page of all digests whose first [`Self::bits`] bits are [`Self::number`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageId {
    bits: u8,
    number: u32,
}

impl PageId {
    /// The page with this number among those that `bits` bits select; `None` if there is none.
    pub fn new(bits: u8, number: usize) -> Option<Self> {
        let number =
            u32::try_from(number).ok().filter(|number| bits <= MAX_SPLIT_BITS && u64::from(*number) >> bits == 0)?;
        Some(Self { bits, number })
    }

    /// How many leading bits the page's digests share, at most 32.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Those bits as a number, the first one most significant.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The first 64 bits of its first digest.
    pub(crate) fn first(&self) -> u64 {
        u64::from(self.number).checked_shl(64_u32.saturating_sub(u32::from(self.bits))).unwrap_or(0)
    }

    /// The same for the first digest after the page.
    pub(crate) fn end(&self) -> u128 {
        u128::from(self.first()).saturating_add(1_u128 << 64_u32.saturating_sub(u32::from(self.bits)))
    }

    /// Whether a digest belongs to this page.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        (u128::from(self.first())..self.end()).contains(&u128::from(digest.prefix()))
    }

    /// The two pages that this one splits into, in order; `None` if it can't be split.
    pub(crate) fn halves(&self) -> Option<[Self; 2]> {
        let bits = self.bits.checked_add(1).filter(|bits| *bits <= MAX_SPLIT_BITS)?;
        let number = self.number.checked_mul(2)?;
        Some([Self { bits, number }, Self { bits, number: number.checked_add(1)? }])
    }
}

/// All pages that `bits` bits select, in order.
pub(crate) fn pages_by_bits(bits: u8) -> impl Iterator<Item = PageId> {
    (0..1_u32 << bits.min(MAX_PAGE_BITS)).map(move |number| PageId { bits, number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::test;

    #[test]
    fn halves_cover_their_page_down_to_the_last_bit() {
        let mut page = PageId::new(0, 0).unwrap();
        let mut splits = 0;
        while let Some([low, high]) = page.halves() {
            assert_eq!((low.first(), low.end()), (page.first(), u128::from(high.first())), "{page:?}");
            assert_eq!(high.end(), page.end(), "{page:?}");
            (page, splits) = (high, splits + 1);
        }
        assert_eq!((splits, page.end()), (32, 1 << 64));
        assert!(page.holds(&Digest([0xff; 32])) && !page.holds(&Digest([0xfe; 32])));
    }

    #[test]
    fn only_pages_that_exist_have_an_id() {
        for (bits, number, is_there) in
            [(0, 0, true), (0, 1, false), (1, 1, true), (1, 2, false), (32, 0xffff_ffff, true), (33, 0, false)]
        {
            assert_eq!(PageId::new(bits, number).is_some(), is_there, "{number} of {bits} bits");
        }
    }
}
