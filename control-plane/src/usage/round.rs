//! A round: what many batches say of a key becomes one delta.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use policy::protocol::usage::SecretUse;
use policy::{KeyId, UnixSeconds};

use super::{ALLOWED, Batch, Denial};
use crate::store::Admitted;

/// Denials that are kept of a key.
pub(crate) const LATEST: usize = 20;

/// Secrets of a key whose use is told apart in a round: it has two at most, and a rotation may come between.
const SECRETS: usize = 4;

/// What is to be added to one key.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyDelta {
    /// Entries that it was merged of.
    pub(crate) entries: u64,
    /// By the start of their hour and outcome.
    pub(crate) counts: BTreeMap<(UnixSeconds, &'static str), u64>,
    pub(crate) used: Vec<SecretUse>,
    /// The last use that named an address.
    pub(crate) last: Option<(UnixSeconds, IpAddr)>,
    /// At most [`LATEST`], newest first.
    pub(crate) denials: Vec<Denial>,
}

impl KeyDelta {
    fn count(&mut self, hour: UnixSeconds, outcome: &'static str, more: u64) {
        if more == 0 {
            return;
        }
        let count = self.counts.entry((hour, outcome)).or_default();
        *count = count.saturating_add(more);
    }

    fn used(&mut self, secret_use: SecretUse) {
        match self.used.iter_mut().find(|own| own.secret == secret_use.secret) {
            Some(own) => own.at = own.at.max(secret_use.at),
            None => {
                self.used.push(secret_use);
                self.used.sort_by_key(|own| Reverse(own.at));
                self.used.truncate(SECRETS);
            }
        }
    }

    fn denied(&mut self, denial: Denial) {
        let at = self.denials.partition_point(|own| own.at > denial.at);
        self.denials.insert(at, denial);
        self.denials.truncate(LATEST);
    }
}

/// Merges batches, by key and in the order of keys. Of a batch that was folded up to some key, only what lies behind it.
pub(super) fn merge(batches: impl IntoIterator<Item = (Batch, Admitted)>) -> Vec<(KeyId, KeyDelta)> {
    let mut keys: HashMap<KeyId, KeyDelta> = HashMap::new();
    for (batch, admitted) in batches {
        let is_new = |key: KeyId| match admitted {
            Admitted::New => true,
            Admitted::Behind(folded_to) => folded_to.is_none_or(|folded_to| key > folded_to),
            Admitted::Counted | Admitted::Jumps { .. } => false,
        };
        for counts in batch.counts.into_iter().filter(|counts| is_new(counts.key)) {
            let delta = keys.entry(counts.key).or_default();
            delta.entries = delta.entries.saturating_add(1);
            delta.count(counts.hour, ALLOWED, counts.allowed);
            counts.denied.iter().for_each(|(code, more)| delta.count(counts.hour, code, *more));
            if let (Some(at), Some(address)) = (counts.used.iter().map(|used| used.at).max(), counts.address)
                && delta.last.is_none_or(|(last, _)| last <= at)
            {
                delta.last = Some((at, address));
            }
            counts.used.iter().for_each(|used| delta.used(*used));
        }
        for (key, denial) in batch.denials.into_iter().filter(|(key, _)| is_new(*key)) {
            let delta = keys.entry(key).or_default();
            delta.entries = delta.entries.saturating_add(1);
            delta.denied(denial);
        }
    }
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_unstable_by_key(|(key, _)| *key);
    keys
}

#[cfg(test)]
mod tests {
    use policy::protocol::usage::SecretMark;

    use super::*;
    use crate::usage::{BatchName, Counts, LeftOutCounts};

    fn key(byte: u8) -> KeyId {
        KeyId::from_bytes([byte; 16])
    }

    fn denial(at: i64) -> Denial {
        let text = |text: &str| text.to_owned();
        Denial { code: text("missing-scope"), address: None, at: UnixSeconds(at), method: text("GET"), path: text("/") }
    }

    fn batch(keys: &[u8], at: i64) -> Batch {
        let text = |text: &str| text.to_owned();
        let counts = |byte: &u8| Counts {
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
            left_out: LeftOutCounts::default(),
        }
    }

    #[test]
    fn what_many_batches_say_of_a_key_is_added_once() {
        let merged = merge([
            (batch(&[2, 1], 7), Admitted::New),
            (batch(&[2], 9), Admitted::New),
            (batch(&[2], 8), Admitted::New),
            (batch(&[1, 2, 3], 9), Admitted::Counted),
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
            let merged = merge([(batch(&[1, 2, 3], 7), Admitted::Behind(folded_to))]);
            let keys: Vec<_> = merged.iter().map(|(key, _)| *key).collect();
            assert_eq!(keys, expected.into_iter().map(key).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_latest_denials_of_a_key_are_kept() {
        let merged = merge((0..50).map(|at| (batch(&[1], at), Admitted::New)));
        let kept: Vec<_> = merged[0].1.denials.iter().map(|denial| denial.at.0).collect();
        assert_eq!(kept, (30..50).rev().collect::<Vec<_>>());
    }
}
