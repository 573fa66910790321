//! Shared by several targets: a table of a few records, and messages with correct length and checksum.

use policy::table::Loading;
use policy::wire::{KeyRecord, Snapshot, SnapshotBuilder};
use policy::{
    Allowlist, Digest, Environment, Epoch, KeyId, Level, Position, Revision, Table, UnixSeconds, WorkspaceId,
};

/// Bytes before a message's own content.
pub const HEADER_BYTES: usize = 76;

/// The manifest's offset of its entry for the first page: count, length and checksum.
const SUMMARY: usize = 77;

/// A page's offset of its number of records.
const COUNT: usize = 80;

/// Digests of the records of [`snapshot`].
pub fn digests() -> [Digest; 3] {
    ["one", "two", "three"].map(|text| Digest::of(text.as_bytes()))
}

/// A snapshot of one page.
pub fn snapshot() -> Snapshot {
    let position = Position::first(Epoch::from_bytes([0xe0; 16]), Revision(41));
    let scopes = vec![(0, "reviews".parse().expect("a scope")), (7, "webhooks".parse().expect("a scope"))];
    let mut builder = SnapshotBuilder::new(position, scopes, vec![(0, Environment::default())]);
    let mut digests = digests();
    digests.sort_unstable();
    for (number, digest) in (0_u8..).zip(digests) {
        let record = KeyRecord {
            digest,
            key: KeyId::from_bytes([number; 16]),
            workspace: WorkspaceId::from_bytes([7; 16]),
            slug: "acme".to_owned(),
            environment: 0,
            active: number != 1,
            expires_at: UnixSeconds::DISTANT_FUTURE,
            superseded_at: UnixSeconds::DISTANT_FUTURE,
            grants: vec![(0, Level::Read)],
            allowlist: Allowlist::try_from(Some(vec!["192.0.2.0/24".to_owned()])).expect("an allowlist"),
        };
        builder.push(&record).expect("a record");
    }
    builder.finish().expect("a snapshot")
}

/// The table that an edge loads from a snapshot.
pub fn load(snapshot: &Snapshot) -> Table {
    let mut loading = Loading::start(&snapshot.manifest).expect("a manifest");
    for page in &snapshot.pages {
        loading.add(page.clone()).expect("a page");
    }
    loading.finish().expect("a table")
}

/// This content after the header of `like`, with correct length and checksum.
pub fn sealed(like: &[u8], content: &[u8]) -> Vec<u8> {
    let mut message = [&like[..HEADER_BYTES], content].concat();
    let length = u32::try_from(message.len()).expect("a short message");
    message[16..20].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32fast::hash(&message[12..]);
    message[8..12].copy_from_slice(&checksum.to_le_bytes());
    message
}

/// The manifest of a snapshot of one page, changed to announce this page instead.
pub fn announcing(manifest: &[u8], page: &[u8]) -> Option<Vec<u8>> {
    let mut content = manifest[HEADER_BYTES..].to_vec();
    let summary = &mut content[SUMMARY - HEADER_BYTES..][..12];
    summary[..4].copy_from_slice(page.get(COUNT..COUNT + 4)?);
    summary[4..8].copy_from_slice(&u32::try_from(page.len()).ok()?.to_le_bytes());
    summary[8..].copy_from_slice(&page[8..12]);
    Some(sealed(manifest, &content))
}

/// Reads all of a digest's record, if there is one.
pub fn read_fully(table: &Table, digest: &Digest) {
    let Some(view) = table.find(digest) else { return };
    assert!(view.digest() == *digest, "the record that was found is of another digest");
    assert!(view.workspace().is_some() && view.slug().is_some());
    let _ = (view.key(), view.is_active(), view.expires_at(), view.superseded_at(), view.environment());
    for (number, level) in view.levels() {
        assert!(view.level(number).is_some_and(|held| held.includes(level) || level.includes(held)));
    }
    for address in [Some([192, 0, 2, 7].into()), Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into()), None] {
        let is_permitted = view.permits(address);
        assert!(is_permitted || view.has_allowlist());
    }
}
