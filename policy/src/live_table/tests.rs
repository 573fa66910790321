//! Replacing a table while it is in use.

use super::*;
use crate::fixtures::{EPOCH, builder, delta, record, start, test};
use crate::id::Epoch;
use crate::position::Revision;
use crate::table::{RebaseOutcome, Table};
use crate::wire::{KeyRecord, Op, Snapshot};

/// The target size of pages: small, so that few records make several.
const TARGET: usize = 1_000;

/// Records of `names`, each active or not.
fn records(names: std::ops::Range<u32>, active: bool) -> Vec<KeyRecord> {
    names.map(|name| KeyRecord { active, ..record(&name.to_string()) }).collect()
}

fn paged(position: Position, records: &[KeyRecord]) -> Snapshot {
    builder(position, records).finish_below(TARGET).unwrap()
}

fn load(snapshot: &Snapshot) -> Table {
    let mut loading = Loading::start(&snapshot.manifest).unwrap();
    snapshot.pages.iter().for_each(|page| loading.add(page.clone()).unwrap());
    loading.finish().unwrap()
}

fn begin(live_table: &mut LiveTable, snapshot: &Snapshot) {
    live_table.begin(Loading::start(&snapshot.manifest).unwrap());
}

/// How many of the records are active, inactive, and unknown.
fn states(live_table: &LiveTable, records: &[KeyRecord]) -> (usize, usize, usize) {
    let mut states = (0, 0, 0);
    for record in records {
        match live_table.find(&record.digest).map(|found| found.record.is_active()) {
            Some(true) => states.0 += 1,
            Some(false) => states.1 += 1,
            None => states.2 += 1,
        }
    }
    states
}

fn pages_held(live_table: &LiveTable) -> usize {
    let pages = |table: &Table| table.page_ids().filter(|id| table.page(*id).is_some()).count();
    let pending = live_table.pending.iter().map(|pending| pages(pending.loading.table()));
    live_table.tables.iter().map(pages).chain(pending).sum()
}

#[test]
fn nothing_is_decided_before_the_first_table_is_whole() {
    let all = records(0..60, true);
    let snapshot = paged(start(), &all);
    assert!(snapshot.pages.len() >= 4, "{} pages", snapshot.pages.len());
    let mut live_table = LiveTable::default();
    begin(&mut live_table, &snapshot);
    assert_eq!((live_table.position(), live_table.wanted()), (None, None), "it may not be the newest");
    live_table.mark_caught_up();
    for (number, page) in snapshot.pages.iter().enumerate() {
        assert_eq!((live_table.position(), live_table.wanted()), (None, Some(number)));
        live_table.add(page.clone()).unwrap();
    }
    assert_eq!((live_table.position(), live_table.wanted(), live_table.len()), (Some(start()), None, 60));
    assert_eq!(states(&live_table, &all), (60, 0, 0));
}

#[test]
fn a_snapshot_replaces_the_table_page_by_page_without_two_whole_tables() {
    let (before, after) = (records(0..60, true), records(0..90, false));
    let (old, new) = (paged(start(), &before), paged(elsewhere(7), &after));
    assert_ne!(old.pages.len(), new.pages.len(), "they have different pages");
    let mut live_table = LiveTable::from(load(&old));
    begin(&mut live_table, &new);
    assert_eq!(states(&live_table, &after), (60, 0, 30), "look-ups use it only after it has caught up");
    live_table.mark_caught_up();
    let most = old.pages.len().max(new.pages.len());
    let mut inactive = 0;
    for page in &new.pages {
        assert_eq!(live_table.position(), Some(start()), "all digests have reached the old position");
        live_table.add(page.clone()).unwrap();
        let (_, now, unknown) = states(&live_table, &before);
        assert!(now >= inactive && unknown == 0, "{now} of the old keys are replaced, {unknown} lost");
        inactive = now;
        assert!(pages_held(&live_table) <= most + 1, "{} pages of {most}", pages_held(&live_table));
    }
    assert_eq!((live_table.position(), live_table.len()), (Some(elsewhere(7)), 90));
    assert_eq!(states(&live_table, &after), (0, 90, 0));
}

#[test]
fn a_snapshot_older_than_the_table_revives_nothing() {
    let all = records(0..60, true);
    let snapshot = paged(start(), &all);
    let mut live_table = LiveTable::from(load(&snapshot));
    let ops: Vec<_> = records(0..60, false).into_iter().map(Op::Upsert).collect();
    let (revoked, to) = delta(start(), &[ops]);
    live_table.apply(&revoked).unwrap();
    assert_eq!(states(&live_table, &all), (0, 60, 0));

    begin(&mut live_table, &snapshot);
    assert_eq!((live_table.newest(), states(&live_table, &all)), (Some(start()), (0, 60, 0)));
    live_table.apply(&revoked).unwrap();
    live_table.mark_caught_up();
    for page in &snapshot.pages {
        assert_eq!(states(&live_table, &all), (0, 60, 0));
        live_table.add(page.clone()).unwrap();
    }
    assert_eq!((live_table.position(), states(&live_table, &all), live_table.len()), (Some(to), (0, 60, 0), 60));
}

#[test]
fn a_change_during_a_load_applies_to_pages_that_have_not_arrived() {
    let all = records(0..60, true);
    let mut live_table = LiveTable::from(load(&paged(start(), &all)));
    let new = paged(elsewhere(7), &all);
    begin(&mut live_table, &new);
    live_table.mark_caught_up();
    live_table.add(new.pages[0].clone()).unwrap();
    let ops = all.iter().map(|record| Op::Remove(record.digest)).collect();
    live_table.apply(&delta(elsewhere(7), &[ops]).0).unwrap();
    assert_eq!(states(&live_table, &all), (0, 0, 60));
    new.pages.iter().skip(1).for_each(|page| live_table.add(page.clone()).unwrap());
    assert_eq!((states(&live_table, &all), live_table.len()), ((0, 0, 60), 0));
}

#[test]
fn an_interrupted_load_loses_no_key_and_the_next_one_completes_the_table() {
    let (before, after, last) = (records(0..60, true), records(0..60, false), records(0..40, true));
    let mut live_table = LiveTable::from(load(&paged(start(), &before)));
    let broken = paged(elsewhere(7), &after);
    begin(&mut live_table, &broken);
    live_table.mark_caught_up();
    live_table.add(broken.pages[0].clone()).unwrap();
    live_table.add(broken.pages[1].clone()).unwrap();
    let (active, inactive, unknown) = states(&live_table, &before);
    assert!(active > 0 && inactive > 0 && unknown == 0);

    let next = paged(elsewhere(8), &last);
    begin(&mut live_table, &next);
    assert_eq!(states(&live_table, &before), (active, inactive, 0), "nothing is lost with the interrupted snapshot");
    assert_eq!(live_table.position(), Some(start()));
    live_table.mark_caught_up();
    next.pages.iter().for_each(|page| live_table.add(page.clone()).unwrap());
    assert_eq!((live_table.position(), states(&live_table, &before)), (Some(elsewhere(8)), (40, 0, 20)));
    assert!(live_table.table().is_some());
}

#[test]
fn a_page_that_is_broken_repeated_or_from_elsewhere_is_refused() {
    let all = records(0..60, true);
    let (own, other) = (paged(start(), &all), paged(elsewhere(7), &all));
    let mut live_table = LiveTable::default();
    begin(&mut live_table, &own);
    live_table.mark_caught_up();
    live_table.add(own.pages[0].clone()).unwrap();
    let mut broken = own.pages[1].clone();
    broken.truncate(broken.len() - 1);
    for (name, page) in
        [("repeated", &own.pages[0]), ("skipped", &own.pages[2]), ("elsewhere", &other.pages[1]), ("broken", &broken)]
    {
        assert!(live_table.add(page.clone()).is_err(), "{name}");
        assert_eq!(live_table.wanted(), Some(1), "{name}");
    }
    live_table.add(own.pages[1].clone()).unwrap();
}

/// What one worker copies from another: pages with later changes than their manifest names, and the deltas since.
#[test]
fn a_worker_loads_from_another_whose_pages_run_ahead_of_their_manifest() {
    let all = records(0..60, true);
    let mut leader = load(&paged(start(), &all));
    let (first, between) = delta(start(), &[vec![Op::Remove(all[0].digest)], vec![Op::Upsert(all[0].clone())]]);
    let (second, to) = delta(between, &[vec![Op::Remove(all[1].digest)]]);
    let layout = leader.layout(start()).unwrap();
    leader.apply(&first).unwrap();
    let changed: Vec<_> = leader.changed_pages().collect();
    assert!(changed.iter().all(|id| leader.rebase(*id) == RebaseOutcome::Merged));
    leader.apply(&second).unwrap();

    let mut live_table = LiveTable::default();
    live_table.begin(Loading::start_from_worker(&layout).unwrap());
    live_table.apply(&first).unwrap();
    live_table.apply(&second).unwrap();
    live_table.mark_caught_up();
    while let Some(id) = live_table.wanted_page() {
        live_table.add(leader.page(id).unwrap().to_vec()).unwrap();
    }
    assert_eq!((live_table.position(), live_table.len()), (Some(to), 59));
    assert_eq!(states(&live_table, &all), (59, 0, 1));
    assert!(live_table.find(&all[1].digest).is_none());
}

/// The other worker splits pages during the load, and frees those that it split.
#[test]
fn a_load_from_another_worker_continues_while_that_one_splits_pages() {
    let all = records(0..60, true);
    let mut leader = load(&paged(start(), &all));
    let mut live_table = LiveTable::default();
    live_table.begin(Loading::start_from_worker(&leader.layout(start()).unwrap()).unwrap());
    live_table.mark_caught_up();
    let first = live_table.wanted_page().unwrap();
    live_table.add(leader.page(first).unwrap().to_vec()).unwrap();

    let more = records(60..200, true);
    let (message, to) = delta(start(), &[more.iter().cloned().map(Op::Upsert).collect()]);
    leader.apply(&message).unwrap();
    live_table.apply(&message).unwrap();
    let pages = leader.page_count();
    let next_changed = |leader: &Table| leader.changed_pages().next();
    while let Some(id) = next_changed(&leader) {
        assert_ne!(leader.rebase(id), RebaseOutcome::Outgrown);
    }
    assert!(leader.page_count() > pages + 1, "{} pages after {pages}", leader.page_count());
    assert!(live_table.wanted_page().is_some_and(|id| leader.page(id).is_none()), "the next page must be gone");
    // Changes that are in no page yet.
    let (removed, newest) = delta(to, &[more.iter().take(50).map(|record| Op::Remove(record.digest)).collect()]);
    leader.apply(&removed).unwrap();
    live_table.apply(&removed).unwrap();
    live_table.replace_layout(&leader.layout(to).unwrap()).unwrap();
    while let Some(id) = live_table.wanted_page() {
        live_table.add(leader.page(id).unwrap().to_vec()).unwrap();
    }
    assert_eq!((live_table.position(), live_table.len()), (Some(newest), 150));
    assert_eq!(states(&live_table, &[all, more].concat()), (150, 0, 50));
}

/// A position of another epoch.
fn elsewhere(epoch: u8) -> Position {
    assert_ne!(Epoch::from_bytes([epoch; 16]), EPOCH);
    Position::first(Epoch::from_bytes([epoch; 16]), Revision(5))
}
