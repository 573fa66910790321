//! Records, tables and histories for the tests of several modules.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use core::prelude::v1::test;
// The same tests run natively and, as wasm32, in Node.
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm_bindgen_test::wasm_bindgen_test as test;

use crate::allowlist::{Allowlist, Networks};
use crate::digest::Digest;
use crate::environment::Environment;
use crate::id::{Epoch, KeyId, WorkspaceId};
use crate::position::{Position, Revision};
use crate::scope::Scope;
use crate::table::{Loading, Table};
use crate::time::UnixSeconds;
use crate::wire::{KeyRecord, Op, Snapshot, SnapshotBuilder, encode_change, encode_delta};

/// `lk_live_` keys with a correct checksum. The random part of each is one digit, 32 times.
pub(crate) const KEYS: [&str; 3] = [
    "lk_live_000000000000000000000000000000004cjNQE",
    "lk_live_111111111111111111111111111111112U4akR",
    "lk_live_222222222222222222222222222222220CTzbg",
];

/// A well-formed key of another environment.
pub(crate) const TEST_KEY: &str = "lk_test_000000000000000000000000000000001PE8Il";

pub(crate) const ACME: WorkspaceId = WorkspaceId::from_bytes([0xac; 16]);
pub(crate) const EPOCH: Epoch = Epoch::from_bytes([0xe0; 16]);

pub(crate) const REVIEWS: u16 = 0;
pub(crate) const WEBHOOKS: u16 = 7;
pub(crate) const LIVE: u8 = 0;
pub(crate) const STAGING: u8 = 1;

/// An active key of the workspace `acme` in `live`, without scopes, allowlist or expiry.
pub(crate) fn record(secret: &str) -> KeyRecord {
    KeyRecord {
        digest: Digest::of(secret.as_bytes()),
        key: KeyId::from_bytes([0x6b; 16]),
        workspace: ACME,
        slug: "acme".to_owned(),
        environment: LIVE,
        active: true,
        expires_at: UnixSeconds::DISTANT_FUTURE,
        superseded_at: UnixSeconds::DISTANT_FUTURE,
        grants: Vec::new(),
        allowlist: Allowlist::Any,
    }
}

pub(crate) fn only(networks: &[&str]) -> Allowlist {
    Allowlist::Only(Networks::parse(networks).unwrap())
}

pub(crate) fn scopes() -> Vec<(u16, Scope)> {
    vec![(REVIEWS, "reviews".parse().unwrap()), (WEBHOOKS, "webhooks".parse().unwrap())]
}

pub(crate) fn environments() -> Vec<(u8, Environment)> {
    vec![(LIVE, Environment::default()), (STAGING, "staging".parse().unwrap())]
}

pub(crate) fn start() -> Position {
    Position::first(EPOCH, Revision(41))
}

/// A snapshot of these records, in any order.
pub(crate) fn snapshot(position: Position, records: &[KeyRecord]) -> Snapshot {
    builder(position, records).finish().unwrap()
}

/// A builder of a snapshot of these records, in any order.
pub(crate) fn builder(position: Position, records: &[KeyRecord]) -> SnapshotBuilder {
    let mut sorted: Vec<_> = records.iter().collect();
    sorted.sort_by_key(|record| record.digest);
    let mut builder = SnapshotBuilder::new(position, scopes(), environments());
    sorted.into_iter().for_each(|record| builder.push(record).unwrap());
    builder
}

/// The table that an edge loads from a snapshot.
pub(crate) fn load(snapshot: &Snapshot) -> Table {
    let mut loading = Loading::start(&snapshot.manifest).unwrap();
    while let Some(number) = loading.wanted() {
        loading.add(snapshot.pages[number].clone()).unwrap();
    }
    loading.finish().unwrap()
}

/// A table of these records, at [`start`].
pub(crate) fn table(records: &[KeyRecord]) -> Table {
    load(&snapshot(start(), records))
}

/// The delta from `from` with a revision for each of `changes`, and the position after it.
pub(crate) fn delta(from: Position, changes: &[Vec<Op>]) -> (Vec<u8>, Position) {
    let bodies: Vec<_> = changes.iter().map(|ops| encode_change(ops).unwrap()).collect();
    let to = bodies.iter().fold(from, |position, body| position.then(body).unwrap());
    (encode_delta(from.revision, to, &bodies).unwrap(), to)
}

/// What `table` has for `digest`, as the control plane's record. The allowlist is left out, because a table answers
/// only for single addresses.
pub(crate) fn stored_record(table: &Table, digest: &Digest) -> Option<KeyRecord> {
    let view = table.find(digest)?;
    Some(KeyRecord {
        digest: view.digest(),
        key: view.key(),
        workspace: view.workspace().unwrap(),
        slug: view.slug().unwrap().to_owned(),
        environment: view.environment(),
        active: view.is_active(),
        expires_at: view.expires_at(),
        superseded_at: view.superseded_at(),
        grants: view.levels().collect(),
        allowlist: Allowlist::Any,
    })
}

/// Corrects length and checksum, so that a reader must notice the damage behind them.
pub(crate) fn reseal(message: &mut [u8]) {
    let length = u32::try_from(message.len()).unwrap();
    if let Some(field) = message.get_mut(16..20) {
        field.copy_from_slice(&length.to_le_bytes());
    }
    if let Some(summed) = message.get(12..) {
        let checksum = crc32fast::hash(summed);
        message[8..12].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// The bytes of an annotated dump: two hexadecimal digits a byte, `#` starts a comment.
pub(crate) fn unhex(dump: &str) -> Vec<u8> {
    let digits = |line: &str| line.split('#').next().unwrap_or_default().split_whitespace().collect::<String>();
    let digits: String = dump.lines().map(digits).collect();
    digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn the_keys_of_the_fixtures_are_well_formed() {
    use crate::key_text::{ForeignKeys, PresentedKey};
    for key in KEYS {
        assert!(PresentedKey::parse(key.as_bytes(), ForeignKeys::Refused).is_ok(), "{key}");
    }
}
