//! Replacing a table while it is in use.

use super::*;
use crate::fixtures::{EPOCH, builder, delta, record, start, test};
use crate::id::Epoch;
use crate::position::Revision;
use crate::table::{Rebased, Table};
use crate::wire::{KeyRecord, Op, Snapshot};

/// The target size of pages: small, so that few records make several.
const TARGET: usize = 1_000;

/// Records of `names`, each active or not.
fn records(names: std::ops::Range<u32>, active: bool) -> Vec<KeyRecord> {
    names.map(|name| KeyRecord { active, ..record(&name.to_string()) }).collect()
}

fn cut(position: Position, records: &[KeyRecord]) -> Snapshot {
    builder(position, records).finish_below(TARGET).unwrap()
}

fn loaded(snapshot: &Snapshot) -> Table {
    let mut loading = Loading::start(&snapshot.manifest).unwrap();
    snapshot.pages.iter().for_each(|page| loading.add(page.clone()).unwrap());
    loading.finish().unwrap()
}

fn begun(holding: &mut Holding, snapshot: &Snapshot) {
    holding.begin(Loading::start(&snapshot.manifest).unwrap());
}

/// How many of the records are active, inactive, and unknown.
fn seen(holding: &Holding, records: &[KeyRecord]) -> (usize, usize, usize) {
    let mut seen = (0, 0, 0);
    for record in records {
        match holding.find(&record.digest).map(|known| known.record.is_active()) {
            Some(true) => seen.0 += 1,
            Some(false) => seen.1 += 1,
            None => seen.2 += 1,
        }
    }
    seen
}

fn pages_held(holding: &Holding) -> usize {
    let pages = |table: &Table| table.page_ids().filter(|id| table.page(*id).is_some()).count();
    let next = holding.next.iter().map(|next| pages(next.loading.table()));
    holding.tables.iter().map(pages).chain(next).sum()
}

#[test]
fn nothing_is_decided_before_the_first_table_is_whole() {
    let all = records(0..60, true);
    let snapshot = cut(start(), &all);
    assert!(snapshot.pages.len() >= 4, "{} pages", snapshot.pages.len());
    let mut holding = Holding::default();
    begun(&mut holding, &snapshot);
    assert_eq!((holding.position(), holding.wanted()), (None, None), "it may not be the newest");
    holding.caught_up();
    for (number, page) in snapshot.pages.iter().enumerate() {
        assert_eq!((holding.position(), holding.wanted()), (None, Some(number)));
        holding.add(page.clone()).unwrap();
    }
    assert_eq!((holding.position(), holding.wanted(), holding.len()), (Some(start()), None, 60));
    assert_eq!(seen(&holding, &all), (60, 0, 0));
}

#[test]
fn a_snapshot_replaces_the_table_page_by_page_without_two_whole_tables() {
    let (before, after) = (records(0..60, true), records(0..90, false));
    let (old, new) = (cut(start(), &before), cut(elsewhere(7), &after));
    assert_ne!(old.pages.len(), new.pages.len(), "they are cut in different ways");
    let mut holding = Holding::from(loaded(&old));
    begun(&mut holding, &new);
    assert_eq!(seen(&holding, &after), (60, 0, 30), "look-ups use it only after it has caught up");
    holding.caught_up();
    let most = old.pages.len().max(new.pages.len());
    let mut inactive = 0;
    for page in &new.pages {
        assert_eq!(holding.position(), Some(start()), "all digests have reached the old position");
        holding.add(page.clone()).unwrap();
        let (_, now, unknown) = seen(&holding, &before);
        assert!(now >= inactive && unknown == 0, "{now} of the old keys are replaced, {unknown} lost");
        inactive = now;
        assert!(pages_held(&holding) <= most + 1, "{} pages of {most}", pages_held(&holding));
    }
    assert_eq!((holding.position(), holding.len()), (Some(elsewhere(7)), 90));
    assert_eq!(seen(&holding, &after), (0, 90, 0));
}

#[test]
fn a_snapshot_older_than_the_table_revives_nothing() {
    let all = records(0..60, true);
    let snapshot = cut(start(), &all);
    let mut holding = Holding::from(loaded(&snapshot));
    let ops: Vec<_> = records(0..60, false).into_iter().map(Op::Upsert).collect();
    let (revoked, to) = delta(start(), &[ops]);
    holding.apply(&revoked).unwrap();
    assert_eq!(seen(&holding, &all), (0, 60, 0));

    begun(&mut holding, &snapshot);
    assert_eq!((holding.newest(), seen(&holding, &all)), (Some(start()), (0, 60, 0)));
    holding.apply(&revoked).unwrap();
    holding.caught_up();
    for page in &snapshot.pages {
        assert_eq!(seen(&holding, &all), (0, 60, 0));
        holding.add(page.clone()).unwrap();
    }
    assert_eq!((holding.position(), seen(&holding, &all), holding.len()), (Some(to), (0, 60, 0), 60));
}

#[test]
fn a_change_during_a_load_applies_to_pages_that_have_not_arrived() {
    let all = records(0..60, true);
    let mut holding = Holding::from(loaded(&cut(start(), &all)));
    let new = cut(elsewhere(7), &all);
    begun(&mut holding, &new);
    holding.caught_up();
    holding.add(new.pages[0].clone()).unwrap();
    let ops = all.iter().map(|record| Op::Remove(record.digest)).collect();
    holding.apply(&delta(elsewhere(7), &[ops]).0).unwrap();
    assert_eq!(seen(&holding, &all), (0, 0, 60));
    new.pages.iter().skip(1).for_each(|page| holding.add(page.clone()).unwrap());
    assert_eq!((seen(&holding, &all), holding.len()), ((0, 0, 60), 0));
}

#[test]
fn an_interrupted_load_loses_no_key_and_the_next_one_completes_the_table() {
    let (before, after, last) = (records(0..60, true), records(0..60, false), records(0..40, true));
    let mut holding = Holding::from(loaded(&cut(start(), &before)));
    let broken = cut(elsewhere(7), &after);
    begun(&mut holding, &broken);
    holding.caught_up();
    holding.add(broken.pages[0].clone()).unwrap();
    holding.add(broken.pages[1].clone()).unwrap();
    let (active, inactive, unknown) = seen(&holding, &before);
    assert!(active > 0 && inactive > 0 && unknown == 0);

    let next = cut(elsewhere(8), &last);
    begun(&mut holding, &next);
    assert_eq!(seen(&holding, &before), (active, inactive, 0), "nothing is lost with the interrupted snapshot");
    assert_eq!(holding.position(), Some(start()));
    holding.caught_up();
    next.pages.iter().for_each(|page| holding.add(page.clone()).unwrap());
    assert_eq!((holding.position(), seen(&holding, &before)), (Some(elsewhere(8)), (40, 0, 20)));
    assert!(holding.table().is_some());
}

#[test]
fn a_page_that_is_broken_repeated_or_from_elsewhere_is_refused() {
    let all = records(0..60, true);
    let (own, other) = (cut(start(), &all), cut(elsewhere(7), &all));
    let mut holding = Holding::default();
    begun(&mut holding, &own);
    holding.caught_up();
    holding.add(own.pages[0].clone()).unwrap();
    let mut broken = own.pages[1].clone();
    broken.truncate(broken.len() - 1);
    for (name, page) in
        [("repeated", &own.pages[0]), ("skipped", &own.pages[2]), ("elsewhere", &other.pages[1]), ("broken", &broken)]
    {
        assert!(holding.add(page.clone()).is_err(), "{name}");
        assert_eq!(holding.wanted(), Some(1), "{name}");
    }
    holding.add(own.pages[1].clone()).unwrap();
}

/// What one worker copies from another: pages with later changes than their manifest names, and the deltas since.
#[test]
fn a_worker_loads_from_another_whose_pages_run_ahead_of_their_manifest() {
    let all = records(0..60, true);
    let mut leader = loaded(&cut(start(), &all));
    let (first, between) = delta(start(), &[vec![Op::Remove(all[0].digest)], vec![Op::Upsert(all[0].clone())]]);
    let (second, to) = delta(between, &[vec![Op::Remove(all[1].digest)]]);
    let cut = leader.cut(start()).unwrap();
    leader.apply(&first).unwrap();
    let changed: Vec<_> = leader.changed_pages().collect();
    assert!(changed.iter().all(|id| leader.rebase(*id) == Rebased::Merged));
    leader.apply(&second).unwrap();

    let mut holding = Holding::default();
    holding.begin(Loading::start_from_worker(&cut).unwrap());
    holding.apply(&first).unwrap();
    holding.apply(&second).unwrap();
    holding.caught_up();
    while let Some(id) = holding.wanted_page() {
        holding.add(leader.page(id).unwrap().to_vec()).unwrap();
    }
    assert_eq!((holding.position(), holding.len()), (Some(to), 59));
    assert_eq!(seen(&holding, &all), (59, 0, 1));
    assert!(holding.find(&all[1].digest).is_none());
}

/// The other worker splits pages during the load, and frees those that it split.
#[test]
fn a_load_from_another_worker_continues_while_that_one_splits_pages() {
    let all = records(0..60, true);
    let mut leader = loaded(&cut(start(), &all));
    let mut holding = Holding::default();
    holding.begin(Loading::start_from_worker(&leader.cut(start()).unwrap()).unwrap());
    holding.caught_up();
    let first = holding.wanted_page().unwrap();
    holding.add(leader.page(first).unwrap().to_vec()).unwrap();

    let more = records(60..200, true);
    let (message, to) = delta(start(), &[more.iter().cloned().map(Op::Upsert).collect()]);
    leader.apply(&message).unwrap();
    holding.apply(&message).unwrap();
    let pages = leader.page_count();
    let next_changed = |leader: &Table| leader.changed_pages().next();
    while let Some(id) = next_changed(&leader) {
        assert_ne!(leader.rebase(id), Rebased::Outgrown);
    }
    assert!(leader.page_count() > pages + 1, "{} pages after {pages}", leader.page_count());
    assert!(holding.wanted_page().is_some_and(|id| leader.page(id).is_none()), "the next page must be gone");
    // Changes that are in no page yet.
    let (removed, newest) = delta(to, &[more.iter().take(50).map(|record| Op::Remove(record.digest)).collect()]);
    leader.apply(&removed).unwrap();
    holding.apply(&removed).unwrap();
    holding.cut_anew(&leader.cut(to).unwrap()).unwrap();
    while let Some(id) = holding.wanted_page() {
        holding.add(leader.page(id).unwrap().to_vec()).unwrap();
    }
    assert_eq!((holding.position(), holding.len()), (Some(newest), 150));
    assert_eq!(seen(&holding, &[all, more].concat()), (150, 0, 50));
}

/// A position of another epoch.
fn elsewhere(epoch: u8) -> Position {
    assert_ne!(Epoch::from_bytes([epoch; 16]), EPOCH);
    Position::first(Epoch::from_bytes([epoch; 16]), Revision(5))
}
