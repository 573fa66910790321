//! No bytes make a reader panic or leave a table half changed.

use proptest::prelude::*;
use proptest::sample::Index;

use super::records::{record, uniform};
use super::{CaseCost, cases};
use crate::digest::Digest;
use crate::fixtures::{builder, delta, load, reseal, start, stored_record};
use crate::table::{Loading, Table};
use crate::wire::{KeyRecord, Op, Snapshot};

/// Bytes to overwrite in a message; then the length to cut it to, and bytes to append.
#[derive(Clone, Debug)]
struct Damage {
    over: Vec<(Index, u8)>,
    cut: Option<Index>,
    added: Vec<u8>,
}

fn damage() -> impl Strategy<Value = Damage> {
    let over = prop::collection::vec((any::<Index>(), any::<u8>()), 0..6);
    let cut = prop_oneof![2 => Just(None), 1 => any::<Index>().prop_map(Some)];
    let added = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 0..100)];
    (over, cut, added).prop_map(|(over, cut, added)| Damage { over, cut, added })
}

/// The damaged message, and the same with its length and checksum corrected.
fn damaged(message: &[u8], damage: &Damage) -> [Vec<u8>; 2] {
    let mut bytes = message.to_vec();
    for (at, byte) in &damage.over {
        // After the magic and the checksum: without the magic, nothing is read.
        let at = 12 + at.index(bytes.len() - 12);
        bytes[at] = *byte;
    }
    if let Some(cut) = &damage.cut {
        bytes.truncate(12 + cut.index(bytes.len() - 12));
    }
    bytes.extend_from_slice(&damage.added);
    let mut sealed = bytes.clone();
    sealed[12..].iter_mut().zip([1, 0]).for_each(|(byte, format)| *byte = format);
    reseal(&mut sealed);
    [bytes, sealed]
}

fn records(contents: &[KeyRecord]) -> Vec<KeyRecord> {
    (0..).zip(contents).map(|(number, content)| KeyRecord { digest: uniform(number), ..content.clone() }).collect()
}

fn read_fully(table: &Table) {
    for number in 0..20 {
        let Some(view) = table.find(&uniform(number)) else { continue };
        assert!(view.workspace().is_some() && view.slug().is_some());
        for (number, level) in view.levels() {
            assert!(view.level(number).is_some_and(|held| held.includes(level) || level.includes(held)));
        }
        let permitted = view.permits(Some([192, 0, 2, 7].into()));
        assert!(permitted || view.has_allowlist());
    }
}

fn all(table: &Table) -> Vec<Option<KeyRecord>> {
    (0..20).map(|number| stored_record(table, &uniform(number))).collect()
}

/// Loads pages with a manifest that announces them, so that only their own checks can refuse them.
fn loaded(snapshot: &Snapshot, pages: &[Vec<u8>]) -> Option<Table> {
    let mut manifest = snapshot.manifest.clone();
    for (number, page) in pages.iter().enumerate() {
        let summary = &mut manifest[77 + 12 * number..][..12];
        summary[..4].copy_from_slice(page.get(80..84)?);
        summary[4..8].copy_from_slice(&u32::try_from(page.len()).ok()?.to_le_bytes());
        summary[8..].copy_from_slice(page.get(8..12)?);
    }
    reseal(&mut manifest);
    let mut loading = Loading::start(&manifest).ok()?;
    for page in pages {
        loading.add(page.clone()).ok()?;
    }
    loading.finish()
}

proptest! {
    #![proptest_config(cases(CaseCost::High))]

    #[test]
    fn a_damaged_page_is_refused_or_safe_to_read(
        contents in prop::collection::vec(record(), 1..20), target in 300..5_000_usize,
        damages in prop::collection::vec((any::<Index>(), damage()), 6),
    ) {
        let snapshot = builder(start(), &records(&contents)).finish_below(target).unwrap();
        prop_assert!(loaded(&snapshot, &snapshot.pages).is_some());
        for (page, damage) in damages {
            let number = page.index(snapshot.pages.len());
            for page in damaged(&snapshot.pages[number], &damage) {
                let mut loading = Loading::start(&snapshot.manifest).unwrap();
                snapshot.pages.iter().take(number).for_each(|page| loading.add(page.clone()).unwrap());
                let same = page == snapshot.pages[number];
                prop_assert_eq!(loading.add(page.clone()).is_ok(), same, "the manifest announced another page");
                let mut pages = snapshot.pages.clone();
                pages[number] = page;
                if let Some(table) = loaded(&snapshot, &pages) {
                    read_fully(&table);
                }
            }
        }
    }

    #[test]
    fn a_damaged_manifest_is_refused_or_leads_to_a_table_that_is_safe_to_read(
        contents in prop::collection::vec(record(), 0..20), target in 300..5_000_usize,
        damages in prop::collection::vec(damage(), 4),
    ) {
        let snapshot = builder(start(), &records(&contents)).finish_below(target).unwrap();
        for manifest in damages.iter().flat_map(|damage| damaged(&snapshot.manifest, damage)) {
            let Ok(mut loading) = Loading::start(&manifest) else { continue };
            while let Some(page) = loading.wanted().and_then(|number| snapshot.pages.get(number)) {
                if loading.add(page.clone()).is_err() {
                    break;
                }
            }
            loading.finish().iter().for_each(read_fully);
        }
    }

    #[test]
    fn a_damaged_delta_changes_nothing_or_is_whole(
        contents in prop::collection::vec(record(), 0..12), later in prop::collection::vec(record(), 0..12),
        damages in prop::collection::vec(damage(), 4),
    ) {
        let snapshot = builder(start(), &records(&contents)).finish().unwrap();
        let upserts = records(&later).into_iter().map(Op::Upsert);
        let changes: Vec<_> = upserts.chain([Op::Remove(uniform(0)), Op::Remove(Digest([7; 32]))]).collect();
        let (message, _) = delta(start(), &[changes.clone(), Vec::new(), changes]);
        let whole = {
            let mut table = load(&snapshot);
            table.apply(&message).unwrap();
            all(&table)
        };
        for message in damages.iter().flat_map(|damage| damaged(&message, damage)) {
            let mut table = load(&snapshot);
            let before = all(&table);
            match table.apply(&message) {
                // The chain hash allows no other change.
                Ok(()) => prop_assert_eq!(all(&table), whole.clone()),
                Err(_) => {
                    prop_assert_eq!(all(&table), before);
                    prop_assert_eq!(table.position(), start());
                }
            }
        }
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), headed in any::<bool>()) {
        let mut message = bytes;
        if headed && message.len() > 20 {
            message[..8].copy_from_slice(b"LATCHKEY");
            message[12..14].copy_from_slice(&[1, 0]);
            reseal(&mut message);
        }
        let snapshot = builder(start(), &[]).finish().unwrap();
        let mut table = load(&snapshot);
        prop_assert!(table.apply(&message).is_err());
        prop_assert_eq!(table.position(), start());
        prop_assert!(Loading::start(&snapshot.manifest).unwrap().add(message.clone()).is_err());
        if let Ok(loading) = Loading::start(&message) {
            prop_assert!(loading.page_count() <= 1 << 16);
        }
    }
}
