//! Golden bytes: what deployed edges read. A byte that changes here is a new format.

use super::*;
use crate::allowlist::Allowlist;
use crate::digest::Digest;
use crate::fixtures::{ACME, EPOCH, REVIEWS, STAGING, WEBHOOKS, delta, only, record, snapshot, start, test, unhex};
use crate::id::KeyId;
use crate::position::{ChainHash, Position, Revision};
use crate::scope::Level;
use crate::time::UnixSeconds;

/// All that a record can hold.
fn full() -> KeyRecord {
    KeyRecord {
        digest: Digest([0x11; 32]),
        key: KeyId::from_bytes([0x6b; 16]),
        workspace: ACME,
        slug: "acme".to_owned(),
        environment: STAGING,
        active: true,
        expires_at: UnixSeconds(1_800_000_000),
        superseded_at: UnixSeconds::DISTANT_FUTURE,
        grants: vec![(REVIEWS, Level::Read), (WEBHOOKS, Level::Write)],
        allowlist: only(&["192.0.2.0/24", "2001:db8::/32"]),
    }
}

/// As little as a record can hold.
fn bare() -> KeyRecord {
    KeyRecord {
        digest: Digest([0x22; 32]),
        key: KeyId::from_bytes([0x6b; 16]),
        active: false,
        superseded_at: UnixSeconds::DISTANT_PAST,
        ..record("")
    }
}

fn changes() -> Vec<Vec<Op>> {
    vec![
        vec![Op::Upsert(bare())],
        vec![],
        vec![
            Op::Remove(Digest([0x11; 32])),
            Op::DefineScope { number: 8, scope: "credentials".parse().unwrap() },
            Op::DefineEnvironment { number: 2, environment: "test".parse().unwrap() },
        ],
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn manifest_and_page_have_their_golden_bytes() {
    let written = snapshot(start(), &[full(), bare()]);
    assert_eq!(hex(&written.manifest), hex(&unhex(include_str!("golden/manifest.hex"))));
    assert_eq!(written.pages.len(), 1);
    assert_eq!(hex(&written.pages[0]), hex(&unhex(include_str!("golden/page.hex"))));
}

#[test]
fn a_delta_has_its_golden_bytes() {
    let (written, to) = delta(start(), &changes());
    assert_eq!(hex(&written), hex(&unhex(include_str!("golden/delta.hex"))));
    assert_eq!(to.revision, Revision(44));
}

#[test]
fn golden_bytes_are_read() {
    let mut loading = crate::table::Loading::start(&unhex(include_str!("golden/manifest.hex"))).unwrap();
    loading.add(unhex(include_str!("golden/page.hex"))).unwrap();
    let mut table = loading.finish().unwrap();
    assert_eq!(table.position(), start());
    let restricted = table.find(&full().digest).unwrap();
    let expected = KeyRecord { allowlist: Allowlist::Any, ..full() };
    assert_eq!(crate::fixtures::stored_record(&table, &full().digest), Some(expected));
    for (address, permitted) in [("192.0.2.255", true), ("192.0.3.0", false), ("2001:db8::9", true), ("::9", false)] {
        assert_eq!(restricted.permits(Some(address.parse().unwrap())), permitted, "{address}");
    }
    assert_eq!(crate::fixtures::stored_record(&table, &bare().digest), Some(bare()));

    table.apply(&unhex(include_str!("golden/delta.hex"))).unwrap();
    assert_eq!(table.position().revision, Revision(44));
    assert!(table.find(&full().digest).is_none());
    assert_eq!(table.catalogue().scope_number("credentials"), Some(8));
    assert!(table.catalogue().is_environment(2, &"test".parse().unwrap()));
}

/// The example of `docs/feed-format.md`, so that another program can be checked against it.
#[test]
fn the_documented_example_has_its_chain_hashes() {
    let first = Position::first(EPOCH, Revision(41));
    let second = first.then(b"").unwrap();
    for (position, head) in [
        (first, "e52b2492a0caace6ff1f5bd7a3fb689289f4498a6c5109dcd69d4778e63ce9e3"),
        (second, "24040a8b42368a15420db25c5d7b6716a39116b7a033987dfe59ca3f5123e91d"),
    ] {
        assert_eq!(position.head, head.parse::<ChainHash>().unwrap(), "{position:?}");
    }
}
