//! Damaged messages are refused, and the existing table stays unchanged.

use super::*;
use crate::digest::Digest;
use crate::fixtures::{
    KEYS, LIVE, REVIEWS, WEBHOOKS, builder, delta, load, only, record, reseal, snapshot, start, stored_record, table,
    test, unhex,
};
use crate::scope::Level;
use crate::table::{Loading, Table};

fn records() -> Vec<KeyRecord> {
    let [bare, full, _] = KEYS.map(record);
    let grants = vec![(REVIEWS, Level::Read), (WEBHOOKS, Level::Write)];
    vec![bare, KeyRecord { grants, allowlist: only(&["192.0.2.0/24", "2001:db8::/32"]), ..full }]
}

fn changes() -> Vec<Vec<Op>> {
    vec![
        vec![Op::Upsert(KeyRecord { grants: vec![(WEBHOOKS, Level::Read)], ..record(KEYS[2]) })],
        vec![
            Op::Remove(Digest::of(KEYS[0].as_bytes())),
            Op::DefineScope { number: 9, scope: "billing".parse().unwrap() },
        ],
    ]
}

/// True when the delta is refused; the table must then be unchanged.
fn refuses(table: &mut Table, message: &[u8]) -> bool {
    let before = state(table);
    let refused = table.apply(message).is_err();
    assert!(!refused || state(table) == before, "a refused delta changed the table");
    refused
}

type State = (crate::position::Position, u64, Vec<Option<KeyRecord>>, Catalogue);

fn state(table: &Table) -> State {
    let records = KEYS.map(|key| stored_record(table, &Digest::of(key.as_bytes())));
    (table.position(), table.len(), records.to_vec(), table.catalogue().clone())
}

/// Reads the records of all keys in a table, in full.
fn read_fully(table: &Table) {
    for key in KEYS {
        if let Some(view) = table.find(&Digest::of(key.as_bytes())) {
            read_record(view);
        }
    }
}

/// Every part of an accepted record must be readable.
fn read_record(view: RecordView<'_>) {
    assert!(view.workspace().is_some() && view.slug().is_some());
    for (number, _) in view.levels() {
        assert!(view.level(number).is_some());
    }
    for address in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "::"] {
        let permitted = view.permits(Some(address.parse().unwrap()));
        assert!(permitted || view.has_allowlist());
    }
}

/// A snapshot's table from a manifest and one page, if they are accepted.
fn loaded(manifest: &[u8], page: &[u8]) -> Result<Option<Table>, WireError> {
    let mut loading = Loading::start(manifest)?;
    if loading.wanted().is_some() {
        loading.add(page.to_vec())?;
    }
    Ok(loading.finish())
}

/// The manifest, changed to announce `page` as its only page, so that only the page's own checks can refuse it.
fn announcing(manifest: &[u8], page: &[u8]) -> Vec<u8> {
    let mut manifest = manifest.to_vec();
    let summary = manifest.get_mut(77..89).unwrap();
    summary[..4].copy_from_slice(page.get(80..84).unwrap_or(&[0; 4]));
    summary[4..8].copy_from_slice(&u32::try_from(page.len()).unwrap().to_le_bytes());
    summary[8..].copy_from_slice(page.get(8..12).unwrap_or(&[0; 4]));
    reseal(&mut manifest);
    manifest
}

#[test]
fn a_message_cut_at_any_length_is_refused() {
    let whole = snapshot(start(), &records());
    let (change, _) = delta(start(), &changes());
    for at in 0..whole.manifest.len() {
        assert!(Loading::start(&whole.manifest[..at]).is_err(), "manifest cut at {at}");
    }
    for at in 0..whole.pages[0].len() {
        assert!(loaded(&whole.manifest, &whole.pages[0][..at]).is_err(), "page cut at {at}");
    }
    let mut table = load(&whole);
    for at in 0..change.len() {
        assert!(refuses(&mut table, &change[..at]), "delta cut at {at}");
    }
    assert_eq!(table.apply(&change), Ok(()));
}

#[test]
fn a_message_with_any_bit_flipped_is_refused() {
    let whole = snapshot(start(), &records());
    let (change, _) = delta(start(), &changes());
    let flipped = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    for bit in 0..whole.manifest.len() * 8 {
        assert!(Loading::start(&flipped(&whole.manifest, bit)).is_err(), "bit {bit} of the manifest");
    }
    for bit in 0..whole.pages[0].len() * 8 {
        assert!(loaded(&whole.manifest, &flipped(&whole.pages[0], bit)).is_err(), "bit {bit} of the page");
    }
    let mut table = load(&whole);
    for bit in 0..change.len() * 8 {
        assert!(refuses(&mut table, &flipped(&change, bit)), "bit {bit} of the delta");
    }
}

#[test]
fn a_message_with_bytes_behind_it_is_refused() {
    let whole = snapshot(start(), &records());
    let (change, _) = delta(start(), &changes());
    for added in [1, 4, 76, 1000] {
        let longer = |bytes: &[u8]| [bytes, &vec![0; added]].concat();
        let sealed = |bytes: &[u8]| {
            let mut bytes = longer(bytes);
            reseal(&mut bytes);
            bytes
        };
        assert!(Loading::start(&longer(&whole.manifest)).is_err());
        assert!(loaded(&whole.manifest, &longer(&whole.pages[0])).is_err());
        assert!(refuses(&mut load(&whole), &longer(&change)));
        assert!(Loading::start(&sealed(&whole.manifest)).is_err(), "{added} bytes behind a sealed manifest");
        assert!(loaded(&whole.manifest, &sealed(&whole.pages[0])).is_err(), "{added} bytes behind a sealed page");
        assert!(refuses(&mut load(&whole), &sealed(&change)), "{added} bytes behind a sealed delta");
    }
}

#[test]
fn an_oversized_message_is_refused() {
    let whole = snapshot(start(), &records());
    for message in [&whole.manifest, &whole.pages[0]] {
        let mut huge = message.clone();
        huge.resize(MAX_MESSAGE_BYTES + 1, 0);
        // Not sealed: the length is refused before a checksum over all these bytes is computed.
        let length = u32::try_from(huge.len()).unwrap();
        huge[16..20].copy_from_slice(&length.to_le_bytes());
        assert_eq!(Loading::start(&huge).err(), Some(WireError::Length));
        assert_eq!(loaded(&whole.manifest, &huge).err(), Some(WireError::Length));
        assert_eq!(table(&[]).apply(&huge), Err(WireError::Length));
    }
}

/// The bytes are sealed again, so the checksum doesn't show the damage. What is accepted must be safe to read.
#[test]
fn damage_behind_a_correct_checksum_never_makes_reading_fail() {
    let whole = snapshot(start(), &records());
    let page = &whole.pages[0];
    let (change, _) = delta(start(), &changes());
    let mut taken = 0;
    for value in [0, 1, 2, 0x7f, 0x80, 0xff] {
        for at in 8..whole.manifest.len() {
            if let Ok(Some(table)) = loaded(&damaged(&whole.manifest, at, value), page) {
                read_fully(&table);
            }
        }
        for at in 8..page.len() {
            let page = damaged(page, at, value);
            if let Ok(Some(table)) = loaded(&announcing(&whole.manifest, &page), &page) {
                read_fully(&table);
                taken += 1;
            }
        }
        for at in 8..change.len() {
            let mut table = load(&whole);
            let unchanged = change[at] == value;
            assert!(
                refuses(&mut table, &damaged(&change, at, value)) || unchanged || at < 20,
                "delta, {value} at {at}"
            );
            read_fully(&table);
        }
    }
    assert!(taken > 100, "pages were refused for other reasons than their content: {taken} were accepted");
}

#[test]
fn a_truncated_message_with_a_correct_checksum_is_refused() {
    let whole = snapshot(start(), &records());
    let page = &whole.pages[0];
    let (change, _) = delta(start(), &changes());
    for at in 20..whole.manifest.len() {
        assert!(Loading::start(&truncated(&whole.manifest, at)).is_err(), "manifest cut at {at}");
    }
    for at in 20..page.len() {
        let page = truncated(page, at);
        assert!(loaded(&announcing(&whole.manifest, &page), &page).is_err(), "page cut at {at}");
    }
    for at in 20..change.len() {
        assert!(refuses(&mut load(&whole), &truncated(&change, at)), "delta cut at {at}");
    }
}

fn damaged(message: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at] = value;
    reseal(&mut message);
    message
}

fn truncated(message: &[u8], at: usize) -> Vec<u8> {
    let mut message = message[..at].to_vec();
    reseal(&mut message);
    message
}

/// Offsets are those of `golden/page.hex`, which has both records in one page and a heap with everything in it.
#[test]
fn each_field_of_a_page_is_checked() {
    let manifest = unhex(include_str!("golden/manifest.hex"));
    let page = unhex(include_str!("golden/page.hex"));
    for (name, at, value, expected) in [
        ("another page's number", 76, 1, WireError::Order),
        ("one record too many", 80, 200, WireError::Truncated),
        ("a digest above the next one", 84, 0x23, WireError::Order),
        ("a workspace behind the heap's end", 84 + 64, 0xff, WireError::Truncated),
        ("grants behind the heap's end", 84 + 68, 0xff, WireError::Truncated),
        ("too many grants", 84 + 72, 0xff, WireError::Truncated),
        ("too many networks", 84 + 73, 0xff, WireError::Truncated),
        ("a restricted key without networks", 84 + 73, 0, WireError::Content),
        ("an unrestricted key with networks", 84 + 75, 1, WireError::Content),
        ("an unknown flag", 84 + 75, 7, WireError::Content),
        ("a slug that is longer than the heap", 236 + 16, 0xff, WireError::Truncated),
        ("a slug that is not text", 236 + 17, 0xff, WireError::Content),
        ("an unknown address family", 236 + 25, 5, WireError::Content),
        ("a prefix longer than an IPv4 address", 236 + 26, 33, WireError::Content),
        ("a prefix longer than an IPv6 address", 236 + 44, 129, WireError::Content),
    ] {
        let page = damaged(&page, at, value);
        assert_eq!(loaded(&announcing(&manifest, &page), &page).err(), Some(expected), "{name}");
    }
    assert!(loaded(&announcing(&manifest, &page), &page).is_ok());
}

#[test]
fn a_record_in_the_wrong_page_is_refused() {
    let with = |byte| KeyRecord { digest: Digest([byte; 32]), ..record("") };
    let two = builder(start(), &[with(0x11), with(0x99)]).finish_below(120).unwrap();
    assert_eq!(two.pages.len(), 2);
    let mut page = two.pages[0].clone();
    page[84] = 0x80;
    reseal(&mut page);
    let mut loading = Loading::start(&two.manifest).unwrap();
    assert_eq!(loading.add(page), Err(WireError::Order));
    assert_eq!(loading.add(two.pages[0].clone()), Ok(()));
}

#[test]
fn a_delta_with_an_unknown_operation_is_refused() {
    let whole = encode_change(&[Op::Upsert(record(KEYS[2]))]).unwrap();
    for (name, body) in [
        ("an operation of another format", vec![9]),
        ("one behind a good one", [&whole[..], &[0]].concat()),
        ("a name that is no scope", vec![3, 8, 0, 3, b'k', b'e', b'y']),
        ("a name that is no environment", vec![4, 8, 1, b'L']),
        ("a record that is too short", vec![1, 1, 0, 0, 0, 7]),
    ] {
        let to = start().then(&body).unwrap();
        let message = encode_delta(start().revision, to, &[body]).unwrap();
        assert!(refuses(&mut table(&records()), &message), "{name}");
    }
}

/// A complete, valid message that isn't the requested one.
#[test]
fn a_message_for_another_table_is_refused() {
    let whole = snapshot(start(), &records());
    let (change, to) = delta(start(), &changes());
    let (next, _) = delta(to, &changes());
    let elsewhere = crate::position::Position { head: crate::position::ChainHash([1; 32]), ..start() };
    let other_epoch = crate::position::Position::first(crate::id::Epoch::from_bytes([1; 16]), start().revision);
    let mut table = load(&whole);
    for (name, message, expected) in [
        ("a later delta", &next, WireError::Position),
        ("a delta of another history", &delta(elsewhere, &changes()).0, WireError::Chain),
        ("a delta of another epoch", &delta(other_epoch, &changes()).0, WireError::Position),
        ("a manifest", &whole.manifest, WireError::Kind),
        ("a page", &whole.pages[0], WireError::Kind),
        ("nothing", &Vec::new(), WireError::Truncated),
        ("another server's answer", &vec![b'x'; 200], WireError::NotOurs),
    ] {
        let before = state(&table);
        assert_eq!(table.apply(message), Err(expected), "{name}");
        assert_eq!(state(&table), before, "{name}");
    }
    assert_eq!(table.apply(&change), Ok(()));
    let before = state(&table);
    assert_eq!(table.apply(&change), Err(WireError::Position), "the same delta again");
    assert_eq!(state(&table), before);

    for (name, page, expected) in [
        ("a page of another history", &snapshot(elsewhere, &records()).pages[0], WireError::Checksum),
        ("a page of another epoch", &snapshot(other_epoch, &records()).pages[0], WireError::Position),
        ("a page of the same revision with other records", &snapshot(start(), &[]).pages[0], WireError::Checksum),
        ("the manifest", &whole.manifest, WireError::Kind),
        ("a delta", &change, WireError::Kind),
    ] {
        let mut loading = Loading::start(&whole.manifest).unwrap();
        assert_eq!(loading.add(page.clone()), Err(expected), "{name}");
        assert_eq!(loading.wanted(), Some(0), "{name}: the right page is still wanted");
        assert_eq!(loading.add(whole.pages[0].clone()), Ok(()), "{name}");
        assert_eq!(loading.add(whole.pages[0].clone()), Err(WireError::Order), "one page too many");
        assert!(loading.finish().is_some());
    }
    assert_eq!(Loading::start(&change).err(), Some(WireError::Kind));
}

#[test]
fn a_newer_format_is_named_in_the_error() {
    let mut newer = snapshot(start(), &[]).manifest;
    newer[12..14].copy_from_slice(&2_u16.to_le_bytes());
    reseal(&mut newer);
    assert_eq!(Loading::start(&newer).err(), Some(WireError::Format(2)));
}

#[test]
fn changes_that_are_skipped_repeated_reordered_or_foreign_break_the_chain() {
    let bodies: Vec<_> = changes().iter().map(|ops| encode_change(ops).unwrap()).collect();
    let to = bodies.iter().fold(start(), |position, body| position.then(body).unwrap());
    let foreign = encode_change(&[Op::Remove(Digest([9; 32]))]).unwrap();
    let [first, second] = [&bodies[0], &bodies[1]];
    for (name, bodies) in [
        ("none", vec![]),
        ("skipped", vec![first]),
        ("repeated", vec![first, second, second]),
        ("reordered", vec![second, first]),
        ("foreign", vec![first, &foreign]),
    ] {
        let message = encode_delta(start().revision, to, &bodies).unwrap();
        assert_eq!(table(&records()).apply(&message), Err(WireError::Chain), "{name}");
    }
}

#[test]
fn a_number_never_means_a_second_thing() {
    let scope = |number, name: &str| Op::DefineScope { number, scope: name.parse().unwrap() };
    let environment = |number, name: &str| Op::DefineEnvironment { number, environment: name.parse().unwrap() };
    for (op, taken) in [
        (scope(8, "billing"), true),
        (scope(0x7fff, "billing"), true),
        (scope(REVIEWS, "reviews"), true),
        (scope(REVIEWS, "billing"), false),
        (scope(8, "reviews"), false),
        (environment(2, "test"), true),
        (environment(LIVE, "live"), true),
        (environment(LIVE, "test"), false),
        (environment(2, "live"), false),
    ] {
        let mut table = table(&records());
        let (message, _) = delta(start(), &[vec![Op::Remove(Digest::of(KEYS[0].as_bytes())), op.clone()]]);
        assert_eq!(!refuses(&mut table, &message), taken, "{op:?}");
    }
}

#[test]
fn a_scope_number_that_no_grant_can_hold_is_never_written() {
    let scope = "billing".parse().unwrap();
    let grant = KeyRecord { grants: vec![(0x8000, Level::Read)], ..record(KEYS[0]) };
    assert_eq!(encode_change(&[Op::Upsert(grant)]), Err(EncodeError::Number));
    assert_eq!(encode_change(&[Op::DefineScope { number: 0x8000, scope }]), Err(EncodeError::Number));
    let builder = SnapshotBuilder::new(start(), vec![(0x8000, "billing".parse().unwrap())], vec![]);
    assert_eq!(builder.finish().err(), Some(EncodeError::Number));
}

#[test]
fn digests_come_in_ascending_order_each_once() {
    let mut builder = SnapshotBuilder::new(start(), vec![], vec![]);
    let with = |byte| KeyRecord { digest: Digest([byte; 32]), ..record("") };
    assert_eq!(builder.push(&with(2)), Ok(()));
    assert_eq!(builder.push(&with(2)), Err(EncodeError::Order));
    assert_eq!(builder.push(&with(1)), Err(EncodeError::Order));
    assert_eq!(builder.push(&with(3)), Ok(()));
}
