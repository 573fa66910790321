//! Loading, applying and rebasing with many keys.

use super::*;
use crate::fixtures::{REVIEWS, WEBHOOKS, delta, load, record, snapshot, start, stored_record, test};
use crate::id::{KeyId, WorkspaceId};
use crate::scope::Level;
use crate::wire::{KeyRecord, Op, PAGE_BYTES};

/// Typical keys: two scopes, spread over `workspaces`.
fn typical(count: u32, workspaces: u32) -> impl Iterator<Item = KeyRecord> {
    let id = |number: u32| {
        let mut bytes = [0; 16];
        bytes[12..].copy_from_slice(&number.to_be_bytes());
        bytes
    };
    (0..count).map(move |number| KeyRecord {
        key: KeyId::from_bytes(id(number)),
        workspace: WorkspaceId::from_bytes(id(number % workspaces)),
        slug: format!("workspace-{}", number % workspaces),
        grants: vec![(REVIEWS, Level::Read), (WEBHOOKS, Level::Write)],
        ..record(&number.to_string())
    })
}

#[test]
fn a_typical_key_takes_at_most_96_bytes() {
    let records: Vec<_> = typical(10_000, 1_000).collect();
    let table = load(&snapshot(start(), &records));
    assert_eq!(table.len(), 10_000);
    let each = table.bytes() as f64 / 10_000.0;
    assert!(each <= 96.0, "{each} bytes a key");
}

#[test]
fn a_snapshot_that_outgrows_a_page_is_cut_into_more() {
    for (count, pages) in [(0, 1), (1_000, 1), (6_000, 2), (20_000, 8)] {
        let records: Vec<_> = typical(count, 100).collect();
        let snapshot = snapshot(start(), &records);
        assert_eq!(snapshot.pages.len(), pages, "{count} keys");
        assert!(snapshot.pages.iter().all(|page| page.len() <= PAGE_BYTES), "{count} keys");
        assert_eq!(load(&snapshot).len(), u64::from(count));
    }
}

#[test]
fn an_empty_snapshot_is_a_table_without_keys() {
    let table = load(&snapshot(start(), &[]));
    assert!(table.is_empty());
    assert!(table.find(&Digest([0; 32])).is_none());
}

#[test]
fn a_table_needs_all_its_pages() {
    let records: Vec<_> = typical(6_000, 100).collect();
    let snapshot = snapshot(start(), &records);
    let mut loading = Loading::start(&snapshot.manifest).unwrap();
    assert_eq!((loading.page_count(), loading.wanted(), loading.position()), (2, Some(0), start()));
    assert!(loading.add(snapshot.pages[1].clone()).is_err(), "the second page isn't the first");
    loading.add(snapshot.pages[0].clone()).unwrap();
    assert_eq!(loading.wanted(), Some(1));
    assert!(loading.finish().is_none());
}

/// Changed records stay beside their pages until there are many of them.
#[test]
fn many_changes_move_into_the_pages_one_page_at_a_time() {
    let records: Vec<_> = typical(2_000, 100).collect();
    let (before, later) = records.split_at(1_900);
    let mut table = load(&snapshot(start(), before));
    let few: Vec<_> = later.iter().take(10).cloned().map(Op::Upsert).collect();
    let (message, reached) = delta(start(), &[few]);
    table.apply(&message).unwrap();
    assert!(!table.rebase_a_page(), "a few stay");

    let ops: Vec<_> = later.iter().skip(10).cloned().map(Op::Upsert).collect();
    let removed: Vec<_> = before.iter().take(50).map(|record| Op::Remove(record.digest)).collect();
    let (message, reached) = delta(reached, &[ops, removed]);
    table.apply(&message).unwrap();
    assert_eq!(table.changed(), 150);
    let mut steps = 0;
    while table.rebase_a_page() {
        steps += 1;
    }
    assert!(steps > 1, "all in one step");
    assert!(table.changed() <= 1_950 / 64 && !table.is_outgrown(), "{} changes are left", table.changed());
    assert_eq!((table.len(), table.position()), (1_950, reached));
    for (number, record) in records.iter().enumerate() {
        assert_eq!(stored_record(&table, &record.digest).as_ref(), (number >= 50).then_some(record), "key {number}");
    }
}

#[test]
fn a_page_that_grows_is_cut_in_two_and_no_page_gets_large() {
    let records: Vec<_> = typical(4_000, 100).collect();
    let mut table = load(&snapshot(start(), &[]));
    assert_eq!(table.page_count(), 1);
    let mut reached = start();
    for some in records.chunks(100) {
        let (message, to) = delta(reached, &[some.iter().cloned().map(Op::Upsert).collect()]);
        reached = to;
        table.apply(&message).unwrap();
        while table.rebase_a_page() {}
        assert!(!table.is_heavy(), "{} changes are left", table.changed());
    }
    let next = |table: &Table| table.changed_pages().next();
    while let Some(id) = next(&table) {
        assert_ne!(table.rebase(id), RebaseOutcome::Outgrown);
    }
    let sizes: Vec<_> = table.page_ids().map(|id| table.page(id).unwrap().len()).collect();
    assert!(sizes.iter().all(|size| *size <= SPLIT_BYTES), "{sizes:?}");
    assert_eq!(table.len(), 4_000);
    assert!(records.iter().all(|record| stored_record(&table, &record.digest).as_ref() == Some(record)));
}

/// Nothing restricts imported digests, so an admin may choose such ones.
#[test]
fn digests_that_share_nearly_all_bits_are_found_in_pages_split_to_the_limit() {
    let mut records: Vec<_> = typical(20_000, 10).collect();
    let chosen = |number: u32| {
        let mut digest = [0xa5; 32];
        digest[28..].copy_from_slice(&number.to_be_bytes());
        Digest(digest)
    };
    records.iter_mut().zip(0..).for_each(|(record, number)| record.digest = chosen(number));
    let mut table = load(&snapshot(start(), &[]));
    let (message, _) = delta(start(), &[records.iter().cloned().map(Op::Upsert).collect()]);
    table.apply(&message).unwrap();
    while table.rebase_a_page() {}
    assert!(!table.is_outgrown() && table.page_count() == 33, "{} pages", table.page_count());
    assert_eq!(stored_record(&table, &chosen(777)).as_ref(), Some(&records[777]));
}

/// Secrets can't be chosen to have such digests, but imported digests can.
#[test]
fn digests_that_all_share_their_first_bits_are_still_found() {
    let mut records: Vec<_> = typical(5_500, 10).collect();
    records.iter_mut().for_each(|record| record.digest.0[..9].fill(0xa5));
    let snapshot = snapshot(start(), &records);
    assert_eq!(snapshot.pages.len(), 1 << 16);
    let mut table = load(&snapshot);
    let many = 200;
    let removed = records.iter().take(many).map(|record| Op::Remove(record.digest)).collect();
    table.apply(&delta(start(), &[removed]).0).unwrap();
    while table.rebase_a_page() {}
    assert_eq!(table.changed(), 0);
    for (number, record) in records.iter().enumerate() {
        let expected = (number >= many).then_some(record);
        assert_eq!(stored_record(&table, &record.digest).as_ref(), expected, "key {number}");
    }
}
