//! A batch of usage, read entry by entry: one that can't be counted is left out, and loses no other.

use std::collections::BTreeMap;

use axum::body::Bytes;
use policy::decide::CODES;
use policy::protocol::usage::{
    DenialReport, DroppedUsage, HOUR_SECS, KeyUsage, MAX_DENIALS, MAX_KEYS, MAX_METHOD, MAX_PATH, SecretUse, UsageBatch,
};
use policy::protocol::{NAME_EXPECTED, is_name};
use policy::{KeyId, UnixSeconds};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::problem::Problem;
use crate::usage::{Batch, BatchName, Counts, DAY, Denial, LeftOut, LeftOutCounts, OTHER};

/// The most codes of one entry, and of denials without a key.
const MAX_CODES: usize = 32;

/// The most letters of a code.
const MAX_CODE: usize = 32;

/// The most secrets of one key.
const MAX_SECRETS: usize = 4;

/// No worker counts more between two batches.
const MAX_COUNT: u64 = 1 << 40;

/// What happened longer ago is left out: so long an edge may have been cut off.
const OLDEST_SECS: i64 = 8 * DAY;

/// An edge's clock may be ahead by so much. What it says is later than now happened now.
const AHEAD_SECS: i64 = 300;

/// A batch whose entries are still to be read, one by one.
type Unread<'a> = UsageBatch<&'a RawValue, &'a RawValue, &'a RawValue, &'a RawValue>;

/// Reads a batch that came at `now`, and the edge that it is of.
pub(in crate::feed) fn read(bytes: &Bytes, now: UnixSeconds) -> Result<(String, Batch), Problem> {
    // The messages of serde_json name a place and a type, never a value.
    let unread: Unread<'_> = serde_json::from_slice(bytes).map_err(|error| Problem::bad_usage(error.to_string()))?;
    let UsageBatch { edge, instance, worker, sequence, keys, denials, denied, dropped } = unread;
    for (field, name) in [("edge", &edge), ("instance", &instance), ("worker", &worker)] {
        if !is_name(name) {
            return Err(Problem::bad_usage(format!("`{field}` must be {NAME_EXPECTED}")));
        }
    }
    if sequence == 0 || i64::try_from(sequence).is_err() {
        return Err(Problem::bad_usage("`sequence` counts batches from 1 on"));
    }
    let mut reader = Reader { now, left_out: LeftOutCounts::default() };
    let batch = Batch {
        name: BatchName { instance, worker, sequence },
        counts: reader.each(keys, MAX_KEYS, |reader, entry| reader.counts(entry)),
        denials: reader.each(denials, MAX_DENIALS, |reader, entry| reader.denial(entry)),
        denied: reader.each(denied, MAX_CODES, |_, (name, number)| Ok((code(&name)?, count(parsed(number)?)?))),
        dropped: reader
            .each(dropped, 1, |_, dropped| count(parsed::<DroppedUsage>(dropped)?.requests))
            .pop()
            .unwrap_or(0),
        left_out: reader.left_out,
    };
    Ok((edge, batch))
}

/// Reads entries, and counts those that it leaves out.
struct Reader {
    now: UnixSeconds,
    left_out: LeftOutCounts,
}

impl Reader {
    /// Those of `entries` that can be counted, `most` of them at most.
    fn each<E, T>(
        &mut self,
        entries: impl IntoIterator<Item = E>,
        most: usize,
        read: impl Fn(&mut Self, E) -> Result<T, LeftOut>,
    ) -> Vec<T> {
        let mut taken = Vec::new();
        for (at, entry) in entries.into_iter().enumerate() {
            match if at < most { read(self, entry) } else { Err(LeftOut::Surplus) } {
                Ok(entry) => taken.push(entry),
                Err(why) => self.left_out.add(why, 1),
            }
        }
        taken
    }

    fn counts(&mut self, entry: &RawValue) -> Result<Counts, LeftOut> {
        let KeyUsage { key, hour, allowed, denied, used, address } = parsed(entry)?;
        if used.len() > MAX_SECRETS || denied.len() > MAX_CODES {
            return Err(LeftOut::Malformed);
        }
        let UnixSeconds(hour) = self.instant(hour)?;
        let hour = UnixSeconds(hour.div_euclid(HOUR_SECS).saturating_mul(HOUR_SECS));
        let allowed = count(allowed)?;
        // Several codes of newer filters are one here.
        let mut codes: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (name, number) in denied {
            let sum = codes.entry(code(&name)?).or_default();
            *sum = sum.saturating_add(count(number)?);
        }
        // The requests count where only the instant can't be right.
        let used = self.each(used, MAX_SECRETS, |reader, used| Ok(SecretUse { at: reader.instant(used.at)?, ..used }));
        let address = address.map(|address| address.to_canonical());
        Ok(Counts { key, hour, allowed, denied: codes.into_iter().collect(), used, address })
    }

    fn denial(&self, entry: &RawValue) -> Result<(KeyId, Denial), LeftOut> {
        let DenialReport { key, code: said_code, address, at, method, path } = parsed(entry)?;
        let is_plain = |text: &str, most| text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain(&method, MAX_METHOD) || !is_plain(&path, MAX_PATH) || path.contains(['?', '#']) {
            return Err(LeftOut::Malformed);
        }
        let address = address.map(|address| address.to_canonical());
        Ok((key, Denial { code: code(&said_code)?.to_owned(), address, at: self.instant(at)?, method, path }))
    }

    /// When something happened, by an edge's clock.
    fn instant(&self, UnixSeconds(at): UnixSeconds) -> Result<UnixSeconds, LeftOut> {
        let UnixSeconds(now) = self.now;
        if at < now.saturating_sub(OLDEST_SECS) {
            Err(LeftOut::Old)
        } else if at > now.saturating_add(AHEAD_SECS) {
            Err(LeftOut::Ahead)
        } else {
            Ok(UnixSeconds(at.min(now)))
        }
    }
}

fn parsed<'a, T: Deserialize<'a>>(entry: &'a RawValue) -> Result<T, LeftOut> {
    serde_json::from_str(entry.get()).map_err(|_| LeftOut::Malformed)
}

/// A code of ours. One of a newer filter counts as [`OTHER`].
fn code(said: &str) -> Result<&'static str, LeftOut> {
    if said.len() > MAX_CODE || !said.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        return Err(LeftOut::Malformed);
    }
    Ok(CODES.into_iter().find(|own| *own == said).unwrap_or(OTHER))
}

fn count(said: u64) -> Result<u64, LeftOut> {
    if said > MAX_COUNT { Err(LeftOut::Malformed) } else { Ok(said) }
}
