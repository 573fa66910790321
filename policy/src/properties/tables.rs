//! A table finds exactly its records, however it was built.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::Index;

use super::records::{record, sharing};
use super::{CaseCost, cases};
use crate::allowlist::Allowlist;
use crate::digest::Digest;
use crate::fixtures::{builder, delta, load, start, stored_record};
use crate::position::Position;
use crate::table::Table;
use crate::wire::{KeyRecord, Op, PAGE_BYTES, Snapshot};

type Model = BTreeMap<Digest, KeyRecord>;

/// What happens to one of the digests.
#[derive(Clone, Debug)]
enum Step {
    Upsert(Index, KeyRecord),
    Remove(Index),
}

fn steps(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (any::<Index>(), record()).prop_map(|(index, record)| Step::Upsert(index, record)),
        1 => any::<Index>().prop_map(Step::Remove),
    ];
    prop::collection::vec(step, count)
}

/// Applies a step to the model, and returns it as an operation.
fn take(step: &Step, digests: &[Digest], model: &mut Model) -> Op {
    match step {
        Step::Upsert(index, record) => {
            let record = KeyRecord { digest: *index.get(digests), ..record.clone() };
            model.insert(record.digest, record.clone());
            Op::Upsert(record)
        }
        Step::Remove(index) => {
            let digest = *index.get(digests);
            model.remove(&digest);
            Op::Remove(digest)
        }
    }
}

fn rebuilt(position: Position, model: &Model, target: usize) -> Snapshot {
    let records: Vec<_> = model.values().cloned().collect();
    builder(position, &records).finish_below(target).unwrap()
}

/// Checks that `table` and `model` agree on every digest.
fn agree(table: &Table, model: &Model, digests: &[Digest]) -> Result<(), TestCaseError> {
    prop_assert_eq!(table.len(), model.len() as u64);
    for digest in digests {
        let expected = model.get(digest).map(|record| KeyRecord { allowlist: Allowlist::Any, ..record.clone() });
        prop_assert_eq!(stored_record(table, digest), expected);
        if let (Some(view), Some(record)) = (table.find(digest), model.get(digest)) {
            for address in ["192.0.2.7", "192.0.2.8", "10.0.0.1", "2001:db8::7", "2001:db8::8", "fe80::1"] {
                let address: IpAddr = address.parse().unwrap();
                let expected = match &record.allowlist {
                    Allowlist::Any => true,
                    Allowlist::Only(networks) => networks.as_slice().iter().any(|network| network.contains(&address)),
                };
                prop_assert_eq!(view.permits(Some(address)), expected);
            }
        }
    }
    Ok(())
}

/// How many leading bytes all digests share, and the target size of pages. Where many are shared, more bits help
/// little, so pages may be larger; otherwise each case would build 65,536 of them.
fn page_sizes() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![
        3 => (Just(0), 300..20_000_usize),
        1 => (Just(1), 4_000..20_000_usize),
        1 => (2..9_usize, Just(200_000)),
    ]
}

proptest! {
    #![proptest_config(cases(CaseCost::High))]

    #[test]
    fn deltas_applied_find_what_a_rebuilt_snapshot_finds(
        before in steps(0..40),
        changes in prop::collection::vec(prop::collection::vec(steps(0..4), 1..4), 1..20),
        rebase_now in prop::collection::vec(any::<bool>(), 20),
        (shared, target) in page_sizes(),
    ) {
        let digests: Vec<_> = (0..80).map(|number| sharing(shared, number)).collect();
        let mut model = Model::new();
        before.iter().for_each(|step| drop(take(step, &digests, &mut model)));
        let mut table = load(&rebuilt(start(), &model, target));
        agree(&table, &model, &digests)?;
        for (revisions, rebase) in changes.iter().zip(rebase_now) {
            let ops: Vec<Vec<_>> =
                revisions.iter().map(|steps| steps.iter().map(|step| take(step, &digests, &mut model)).collect()).collect();
            let (message, to) = delta(table.position(), &ops);
            prop_assert_eq!(table.apply(&message), Ok(()));
            prop_assert_eq!(table.position(), to);
            if rebase {
                table.rebase_a_page();
                agree(&table, &model, &digests)?;
            }
        }
        agree(&table, &model, &digests)?;
        while table.rebase_a_page() {}
        prop_assert!(!table.is_outgrown());
        agree(&table, &model, &digests)?;
        agree(&load(&rebuilt(table.position(), &model, target)), &model, &digests)?;
    }

    #[test]
    fn pages_of_any_size_find_every_digest_and_no_other(
        count in 0..400_u32,
        record in record(),
        (shared, target) in page_sizes(),
    ) {
        let digest = |number| sharing(shared, number);
        let model: Model =
            (0..count).map(digest).map(|digest| (digest, KeyRecord { digest, ..record.clone() })).collect();
        let snapshot = rebuilt(start(), &model, target);
        prop_assert!(snapshot.pages.len().is_power_of_two() && snapshot.pages.len() <= 1 << 16);
        prop_assert!(snapshot.pages.iter().all(|page| page.len() <= PAGE_BYTES));
        let table = load(&snapshot);
        let all: Vec<_> = model.keys().copied().collect();
        agree(&table, &model, &all)?;
        let near = |digest: &Digest, last: u8| {
            let mut other = *digest;
            other.0[31] ^= last;
            other
        };
        let others = (count..count + 100).map(digest).chain(all.iter().map(|digest| near(digest, 1)));
        for other in others.chain([Digest([0; 32]), Digest([0xff; 32])]).filter(|other| !model.contains_key(other)) {
            prop_assert!(table.find(&other).is_none());
        }
    }
}
