//! Random records and changes.

use proptest::prelude::*;

use crate::allowlist::{Allowlist, Networks};
use crate::digest::Digest;
use crate::id::{KeyId, WorkspaceId};
use crate::scope::Level;
use crate::time::UnixSeconds;
use crate::wire::KeyRecord;

const NETWORKS: [&str; 6] = ["0.0.0.0/0", "192.0.2.0/24", "192.0.2.7", "::/0", "2001:db8::/32", "2001:db8::7"];

/// Uniform digests, which share bits only by chance.
pub(super) fn uniform(number: u32) -> Digest {
    Digest::of(&number.to_le_bytes())
}

/// The same, but all with the same first `shared` bytes.
pub(super) fn sharing(shared: usize, number: u32) -> Digest {
    let mut digest = uniform(number);
    digest.0.iter_mut().take(shared).for_each(|byte| *byte = 0xa5);
    digest
}

/// A record with any content, without its digest.
pub(super) fn record() -> impl Strategy<Value = KeyRecord> {
    let grants = prop::collection::btree_map(0..0x8000_u16, prop_oneof![Just(Level::Read), Just(Level::Write)], 0..5);
    let networks = prop::collection::vec(prop::sample::select(&NETWORKS[..]), 0..4);
    let instant = || prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>()].prop_map(UnixSeconds);
    // A workspace's slug is fixed, so it follows from the id; some are as long as a slug may be, or empty.
    (any::<[u8; 16]>(), 0..6_u8, any::<(u8, bool)>(), instant(), instant(), grants, networks).prop_map(
        |(key, workspace, (environment, active), expires_at, superseded_at, grants, networks)| KeyRecord {
            digest: Digest([0; 32]),
            key: KeyId::from_bytes(key),
            workspace: WorkspaceId::from_bytes([workspace; 16]),
            slug: "w".repeat(usize::from(workspace) * 51),
            environment,
            active,
            expires_at,
            superseded_at,
            grants: grants.into_iter().collect(),
            allowlist: match networks[..] {
                [] => Allowlist::Any,
                _ => Allowlist::Only(Networks::parse(&networks).unwrap()),
            },
        },
    )
}
