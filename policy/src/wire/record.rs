//! The record of one digest: 76 fixed bytes, and a tail in a heap.

use std::net::IpAddr;

use ipnet::IpNet;
use zerocopy::little_endian::{I64, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::reader::Reader;
use super::{EncodeError, WireError};
use crate::allowlist::Allowlist;
use crate::digest::Digest;
use crate::id::{KeyId, WorkspaceId};
use crate::scope::Level;
use crate::time::UnixSeconds;

/// The control plane's record of one digest, before it is encoded. A key has a record for each of its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// SHA-256 of the secret's whole text, by which the record is found.
    pub digest: Digest,
    /// The key that the secret belongs to.
    pub key: KeyId,
    /// The workspace that the key belongs to.
    pub workspace: WorkspaceId,
    /// The workspace's slug, fixed since its creation.
    pub slug: String,
    /// The environment's number in the catalogue.
    pub environment: u8,
    /// False while an admin has deactivated the key, which denies all its secrets.
    pub active: bool,
    /// [`UnixSeconds::DISTANT_FUTURE`]: never.
    pub expires_at: UnixSeconds,
    /// When this secret ends because of a rotation: [`UnixSeconds::DISTANT_FUTURE`] for the current secret, the end of
    /// the overlap for the previous one, [`UnixSeconds::DISTANT_PAST`] for one that was rotated out.
    pub superseded_at: UnixSeconds,
    /// Levels by the scope's number in the catalogue; at most 255.
    pub grants: Vec<(u16, Level)>,
    /// The networks that the key may be used from.
    pub allowlist: Allowlist,
}

/// The key may be used.
const ACTIVE: u8 = 1;
/// The key has an allowlist.
const RESTRICTED: u8 = 2;
/// Top bit of a grant: write; the other 15 are the scope's number.
const WRITE: u16 = 1 << 15;
/// The greatest scope number that a grant can hold.
pub(super) const MAX_SCOPE_NUMBER: u16 = WRITE - 1;

/// The fixed part of a record.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct Fixed {
    pub(super) digest: [u8; 32],
    key: [u8; 16],
    expires_at: I64,
    superseded_at: I64,
    /// The heap offset of the workspace.
    workspace: U32,
    /// The heap offset of the grants; the networks follow them.
    grants: U32,
    grant_count: u8,
    network_count: u8,
    environment: u8,
    flags: u8,
}

/// An allowed network, its address left-aligned.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Network {
    /// 4 or 6.
    family: u8,
    prefix_length: u8,
    address: [u8; 16],
}

impl Network {
    fn new(network: &IpNet) -> Self {
        let (family, address) = left_aligned(network.addr());
        Self { family, prefix_length: network.prefix_len(), address: address.to_be_bytes() }
    }

    fn is_valid(&self) -> bool {
        match self.family {
            4 => self.prefix_length <= 32,
            6 => self.prefix_length <= 128,
            _ => false,
        }
    }

    fn contains(&self, family: u8, address: u128) -> bool {
        let host_bits = 128_u32.saturating_sub(u32::from(self.prefix_length));
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        self.family == family && (u128::from_be_bytes(self.address) ^ address) & mask == 0
    }
}

/// Family and address; an IPv4-mapped IPv6 address is returned as IPv4.
fn left_aligned(address: IpAddr) -> (u8, u128) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (4, u128::from(v4.to_bits()) << 96),
        IpAddr::V6(v6) => (6, v6.to_bits()),
    }
}

/// The bytes that a record with this many grants and networks takes in a table, without its workspace, which a page has
/// once for all records.
pub fn record_bytes(grants: usize, networks: usize) -> u64 {
    let tail = grants.saturating_mul(size_of::<U16>()).saturating_add(networks.saturating_mul(size_of::<Network>()));
    u64::try_from(size_of::<Fixed>().saturating_add(tail)).unwrap_or(u64::MAX)
}

impl KeyRecord {
    /// Bytes of a table that it takes: see [`record_bytes`].
    pub fn bytes(&self) -> u64 {
        record_bytes(self.grants.len(), self.allowlist.networks().len())
    }

    /// Appends the standalone record: the fixed part, then its own heap.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut heap = Vec::new();
        push_workspace(&mut heap, self.workspace, &self.slug)?;
        let grants = u32::try_from(heap.len()).map_err(|_| EncodeError::TooLarge)?;
        for (number, level) in &self.grants {
            // Truncated to 15 bits, it would be another scope's number.
            if *number > MAX_SCOPE_NUMBER {
                return Err(EncodeError::Number);
            }
            let write = match level {
                Level::Read => 0,
                Level::Write => WRITE,
            };
            heap.extend_from_slice(&(number | write).to_le_bytes());
        }
        let (restricted, networks) = match &self.allowlist {
            Allowlist::Any => (0, &[][..]),
            Allowlist::Only(networks) => (RESTRICTED, networks.as_slice()),
        };
        for network in networks {
            heap.extend_from_slice(Network::new(network).as_bytes());
        }
        let active = if self.active { ACTIVE } else { 0 };
        let fixed = Fixed {
            digest: self.digest.0,
            key: *self.key.as_bytes(),
            expires_at: I64::new(self.expires_at.0),
            superseded_at: I64::new(self.superseded_at.0),
            workspace: U32::ZERO,
            grants: U32::new(grants),
            grant_count: u8::try_from(self.grants.len()).map_err(|_| EncodeError::TooManyScopes)?,
            // At most 100: `Networks` holds no more.
            network_count: u8::try_from(networks.len()).map_err(|_| EncodeError::TooLarge)?,
            environment: self.environment,
            flags: active | restricted,
        };
        bytes.extend_from_slice(fixed.as_bytes());
        bytes.extend_from_slice(&heap);
        Ok(())
    }
}

fn push_workspace(heap: &mut Vec<u8>, id: WorkspaceId, slug: &str) -> Result<(), EncodeError> {
    heap.extend_from_slice(id.as_bytes());
    heap.push(u8::try_from(slug.len()).map_err(|_| EncodeError::SlugTooLong)?);
    heap.extend_from_slice(slug.as_bytes());
    Ok(())
}

/// A record read in place. A part that can't be read denies.
#[derive(Clone, Copy)]
pub struct RecordView<'a> {
    fixed: &'a Fixed,
    heap: &'a [u8],
}

impl<'a> RecordView<'a> {
    pub(super) fn new(fixed: &'a Fixed, heap: &'a [u8]) -> Self {
        Self { fixed, heap }
    }

    /// A standalone record, not checked yet: see [`Self::check`].
    pub(crate) fn standalone(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let fixed = reader.read::<Fixed>()?;
        Ok(Self { fixed, heap: reader.rest() })
    }

    /// Checks that all parts are present and valid.
    pub(super) fn check(&self) -> Result<(), WireError> {
        self.workspace_parts()?;
        self.grants()?;
        let networks = self.networks()?;
        let restricted = self.fixed.flags & RESTRICTED != 0;
        let is_valid = self.fixed.flags & !(ACTIVE | RESTRICTED) == 0
            && restricted != networks.is_empty()
            && networks.iter().all(Network::is_valid);
        if is_valid { Ok(()) } else { Err(WireError::Content) }
    }

    /// See [`KeyRecord::digest`].
    pub fn digest(&self) -> Digest {
        Digest(self.fixed.digest)
    }

    /// The key that the secret belongs to.
    pub fn key(&self) -> KeyId {
        KeyId::from_bytes(self.fixed.key)
    }

    /// The workspace that the key belongs to; `None` denies.
    pub fn workspace(&self) -> Option<WorkspaceId> {
        self.workspace_parts().ok().map(|(id, _)| id)
    }

    /// The slug of that workspace; `None` denies.
    pub fn slug(&self) -> Option<&'a str> {
        self.workspace_parts().ok().map(|(_, slug)| slug)
    }

    /// The environment's number: see [`Catalogue::is_environment`](super::Catalogue::is_environment).
    pub fn environment(&self) -> u8 {
        self.fixed.environment
    }

    /// Whether the key is activated. It may still have expired, and its secret may be superseded.
    pub fn is_active(&self) -> bool {
        self.fixed.flags & ACTIVE != 0
    }

    /// From this instant on the key is denied; [`UnixSeconds::DISTANT_FUTURE`]: never.
    pub fn expires_at(&self) -> UnixSeconds {
        UnixSeconds(self.fixed.expires_at.get())
    }

    /// From this instant on the secret is denied: see [`KeyRecord::superseded_at`].
    pub fn superseded_at(&self) -> UnixSeconds {
        UnixSeconds(self.fixed.superseded_at.get())
    }

    /// Whether the client's address matters: see [`Self::permits`].
    pub fn has_allowlist(&self) -> bool {
        self.fixed.flags & RESTRICTED != 0
    }

    /// True when the key may be used from `address`. An unknown address is on no allowlist.
    pub fn permits(&self, address: Option<IpAddr>) -> bool {
        if !self.has_allowlist() {
            return true;
        }
        let (Some(address), Ok(networks)) = (address, self.networks()) else { return false };
        let (family, address) = left_aligned(address);
        networks.iter().any(|network| network.contains(family, address))
    }

    /// The key's level of the scope with this number. Costs a pass over the key's own scopes.
    pub fn level(&self, scope: u16) -> Option<Level> {
        let grant = self.grants().ok()?.iter().map(|grant| grant.get()).find(|grant| grant & !WRITE == scope)?;
        Some(if grant & WRITE != 0 { Level::Write } else { Level::Read })
    }

    /// The key's scopes by number, in wire order.
    pub fn levels(&self) -> impl Iterator<Item = (u16, Level)> + 'a {
        let grants = self.grants().unwrap_or_default();
        grants.iter().map(|grant| {
            let level = if grant.get() & WRITE != 0 { Level::Write } else { Level::Read };
            (grant.get() & !WRITE, level)
        })
    }

    pub(super) fn workspace_parts(&self) -> Result<(WorkspaceId, &'a str), WireError> {
        let mut reader = self.heap_at(self.fixed.workspace)?;
        let id = reader.read::<[u8; 16]>()?;
        Ok((WorkspaceId::from_bytes(*id), reader.short_text()?))
    }

    fn grants(&self) -> Result<&'a [U16], WireError> {
        self.heap_at(self.fixed.grants)?.read_many(usize::from(self.fixed.grant_count))
    }

    fn networks(&self) -> Result<&'a [Network], WireError> {
        let mut reader = self.heap_at(self.fixed.grants)?;
        reader.read_many::<U16>(usize::from(self.fixed.grant_count))?;
        reader.read_many(usize::from(self.fixed.network_count))
    }

    fn heap_at(&self, offset: U32) -> Result<Reader<'a>, WireError> {
        let offset = usize::try_from(offset.get()).map_err(|_| WireError::Truncated)?;
        self.heap.get(offset..).map(Reader::new).ok_or(WireError::Truncated)
    }

    /// The fixed part, with its tail copied to `heap`. `workspace` is the workspace's offset there, if it has one
    /// already.
    pub(super) fn copy_to_heap(&self, heap: &mut Vec<u8>, workspace: Option<u32>) -> Result<Fixed, EncodeError> {
        let position = |heap: &Vec<u8>| u32::try_from(heap.len()).map_err(|_| EncodeError::TooLarge);
        let unreadable = |_: WireError| EncodeError::TooLarge;
        let mut fixed = *self.fixed;
        fixed.workspace = match workspace {
            Some(offset) => U32::new(offset),
            None => {
                let offset = position(heap)?;
                let (id, slug) = self.workspace_parts().map_err(unreadable)?;
                push_workspace(heap, id, slug)?;
                U32::new(offset)
            }
        };
        fixed.grants = U32::new(position(heap)?);
        heap.extend_from_slice(self.grants().map_err(unreadable)?.as_bytes());
        heap.extend_from_slice(self.networks().map_err(unreadable)?.as_bytes());
        Ok(fixed)
    }

    pub(super) fn workspace_offset(fixed: &Fixed) -> u32 {
        fixed.workspace.get()
    }
}
