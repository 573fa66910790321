//! Merges the batches of a round: all reports about a key become one delta.

use std::collections::HashMap;

use policy::KeyId;

use super::{ALLOWED, Batch, KeyDelta};
use crate::store::BatchAdmission;

/// Merges batches, by key and in the order of keys. Of a batch that was folded up to some key, only later keys count.
pub(super) fn merge(batches: impl IntoIterator<Item = (Batch, BatchAdmission)>) -> Vec<(KeyId, KeyDelta)> {
    let mut keys: HashMap<KeyId, KeyDelta> = HashMap::new();
    for (batch, admitted) in batches {
        let is_new = |key: KeyId| match admitted {
            BatchAdmission::New => true,
            BatchAdmission::Partial(folded_to) => folded_to.is_none_or(|folded_to| key > folded_to),
            BatchAdmission::Duplicate | BatchAdmission::SequenceTooHigh { .. } => false,
        };
        for counts in batch.counts.into_iter().filter(|counts| is_new(counts.key)) {
            let delta = keys.entry(counts.key).or_default();
            delta.entries = delta.entries.saturating_add(1);
            delta.add_count(counts.hour, ALLOWED, counts.allowed);
            counts.denied.iter().for_each(|(code, more)| delta.add_count(counts.hour, code, *more));
            if let (Some(at), Some(address)) = (counts.used.iter().map(|used| used.at).max(), counts.address)
                && delta.last.is_none_or(|(last, _)| last <= at)
            {
                delta.last = Some((at, address));
            }
            counts.used.iter().for_each(|used| delta.add_use(*used));
        }
        for (key, denial) in batch.denials.into_iter().filter(|(key, _)| is_new(*key)) {
            let delta = keys.entry(key).or_default();
            delta.entries = delta.entries.saturating_add(1);
            delta.add_denial(denial);
        }
    }
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_unstable_by_key(|(key, _)| *key);
    keys
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use policy::UnixSeconds;
    use policy::protocol::usage::{SecretMark, SecretUse};

    use super::*;
    use crate::usage::{BatchName, Denial, KeyCounts, SkipCounts};

    fn key(byte: u8) -> KeyId {
        KeyId::from_bytes([byte; 16])
    }

    fn denial(at: i64) -> Denial {
        let text = |text: &str| text.to_owned();
        Denial { code: text("missing-scope"), address: None, at: UnixSeconds(at), method: text("GET"), path: text("/") }
    }

    fn batch(keys: &[u8], at: i64) -> Batch {
        let text = |text: &str| text.to_owned();
        let counts = |byte: &u8| KeyCounts {
            key: key(*byte),
            hour: UnixSeconds(0),
            allowed: 2,
            denied: vec![("missing-scope", 1)],
            used: vec![SecretUse { secret: SecretMark([*byte; 4]), at: UnixSeconds(at) }],
            address: Some(IpAddr::from([192, 0, 2, u8::try_from(at).unwrap()])),
        };
        Batch {
            name: BatchName { instance: text("i"), worker: text("w"), sequence: 1 },
            counts: keys.iter().map(counts).collect(),
            denials: keys.iter().map(|byte| (key(*byte), denial(at))).collect(),
            denied: Vec::new(),
            dropped: 0,
            skipped: SkipCounts::default(),
        }
    }

    #[test]
    fn reports_of_many_batches_about_a_key_are_added_once() {
        let merged = merge([
            (batch(&[2, 1], 7), BatchAdmission::New),
            (batch(&[2], 9), BatchAdmission::New),
            (batch(&[2], 8), BatchAdmission::New),
            (batch(&[1, 2, 3], 9), BatchAdmission::Duplicate),
        ]);
        assert_eq!(merged.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key(1), key(2)]);
        let (_, delta) = &merged[1];
        let counts = [((UnixSeconds(0), ALLOWED), 6), ((UnixSeconds(0), "missing-scope"), 3)];
        assert_eq!((delta.counts.clone(), delta.entries), (counts.into(), 6));
        assert_eq!(delta.used, [SecretUse { secret: SecretMark([2; 4]), at: UnixSeconds(9) }]);
        assert_eq!(delta.last, Some((UnixSeconds(9), IpAddr::from([192, 0, 2, 9]))));
        assert_eq!(delta.denials.iter().map(|denial| denial.at.0).collect::<Vec<_>>(), [9, 8, 7]);
    }

    #[test]
    fn of_a_batch_that_was_folded_in_part_only_the_rest_counts() {
        for (folded_to, expected) in [(None, vec![1, 2, 3]), (Some(key(1)), vec![2, 3]), (Some(key(3)), vec![])] {
            let merged = merge([(batch(&[1, 2, 3], 7), BatchAdmission::Partial(folded_to))]);
            let keys: Vec<_> = merged.iter().map(|(key, _)| *key).collect();
            assert_eq!(keys, expected.into_iter().map(key).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_latest_denials_of_a_key_are_kept() {
        let merged = merge((0..50).map(|at| (batch(&[1], at), BatchAdmission::New)));
        let kept: Vec<_> = merged[0].1.denials.iter().map(|denial| denial.at.0).collect();
        assert_eq!(kept, (30..50).rev().collect::<Vec<_>>());
    }
}
