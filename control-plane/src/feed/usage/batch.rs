//! A batch of usage, read entry by entry: an invalid entry is skipped, and the others still count.

use std::collections::BTreeMap;

use axum::body::Bytes;
use policy::protocol::usage::{
    DenialReport, DroppedUsage, HOUR_SECS, KeyUsage, MAX_DENIALS, MAX_KEYS, MAX_METHOD, MAX_PATH, SecretUse, UsageBatch,
};
use policy::protocol::{NAME_EXPECTED, is_name};
use policy::{DenyReason, KeyId, UnixSeconds};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::usage::{Batch, BatchName, DAY_SECS, Denial, KeyCounts, OTHER_CODE, SkipCounts, SkipReason};
use crate::web::problem::Problem;

/// The most codes of one entry, and of denials without a key.
const MAX_CODES: usize = 32;

/// The most letters of a code.
const MAX_CODE: usize = 32;

/// The most secrets of one key.
const MAX_SECRETS: usize = 4;

/// No worker counts more between two batches.
const MAX_COUNT: u64 = 1 << 40;

/// Older entries are skipped. An edge may have been without contact for this long.
const OLDEST_SECS: i64 = 8 * DAY_SECS;

/// The most that an edge's clock may be ahead. An instant in the future counts as now.
const AHEAD_SECS: i64 = 300;

/// A batch whose entries are not parsed yet.
type RawBatch<'a> = UsageBatch<&'a RawValue, &'a RawValue, &'a RawValue, &'a RawValue>;

/// Reads a batch that was received at `now`. Returns it with the name of its edge.
pub(in crate::feed) fn read(bytes: &Bytes, now: UnixSeconds) -> Result<(String, Batch), Problem> {
    // The messages of serde_json name a position and a type, never a value.
    let raw: RawBatch<'_> = serde_json::from_slice(bytes).map_err(|error| Problem::bad_usage(error.to_string()))?;
    let UsageBatch { edge, instance, worker, sequence, keys, denials, denied, dropped } = raw;
    for (field, name) in [("edge", &edge), ("instance", &instance), ("worker", &worker)] {
        if !is_name(name) {
            return Err(Problem::bad_usage(format!("`{field}` must be {NAME_EXPECTED}")));
        }
    }
    if sequence == 0 || i64::try_from(sequence).is_err() {
        return Err(Problem::bad_usage("`sequence` counts batches from 1 on"));
    }
    let mut reader = Reader { now, skipped: SkipCounts::default() };
    let batch = Batch {
        name: BatchName { instance, worker, sequence },
        counts: reader.each(keys, MAX_KEYS, |reader, entry| reader.counts(entry)),
        denials: reader.each(denials, MAX_DENIALS, |reader, entry| reader.denial(entry)),
        denied: reader.each(denied, MAX_CODES, |_, (name, number)| Ok((code(&name)?, count(parsed(number)?)?))),
        dropped: reader
            .each(dropped, 1, |_, dropped| count(parsed::<DroppedUsage>(dropped)?.requests))
            .pop()
            .unwrap_or(0),
        skipped: reader.skipped,
    };
    Ok((edge, batch))
}

/// Reads entries, and counts those that it skips.
struct Reader {
    now: UnixSeconds,
    skipped: SkipCounts,
}

impl Reader {
    /// The valid ones of `entries`, at most `most` of them.
    fn each<E, T>(
        &mut self,
        entries: impl IntoIterator<Item = E>,
        most: usize,
        read: impl Fn(&mut Self, E) -> Result<T, SkipReason>,
    ) -> Vec<T> {
        let mut valid = Vec::new();
        for (at, entry) in entries.into_iter().enumerate() {
            match if at < most { read(self, entry) } else { Err(SkipReason::Surplus) } {
                Ok(entry) => valid.push(entry),
                Err(why) => self.skipped.add(why, 1),
            }
        }
        valid
    }

    fn counts(&mut self, entry: &RawValue) -> Result<KeyCounts, SkipReason> {
        let KeyUsage { key, hour, allowed, denied, used, address } = parsed(entry)?;
        if used.len() > MAX_SECRETS || denied.len() > MAX_CODES {
            return Err(SkipReason::Malformed);
        }
        let UnixSeconds(hour) = self.instant(hour)?;
        let hour = UnixSeconds(hour.div_euclid(HOUR_SECS).saturating_mul(HOUR_SECS));
        let allowed = count(allowed)?;
        // All unknown codes of newer filters are merged into one here.
        let mut codes: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (name, number) in denied {
            let sum = codes.entry(code(&name)?).or_default();
            *sum = sum.saturating_add(count(number)?);
        }
        // The requests still count if only the instant is invalid.
        let used = self.each(used, MAX_SECRETS, |reader, used| Ok(SecretUse { at: reader.instant(used.at)?, ..used }));
        let address = address.map(|address| address.to_canonical());
        Ok(KeyCounts { key, hour, allowed, denied: codes.into_iter().collect(), used, address })
    }

    fn denial(&self, entry: &RawValue) -> Result<(KeyId, Denial), SkipReason> {
        let DenialReport { key, code: reported_code, address, at, method, path } = parsed(entry)?;
        let is_plain = |text: &str, most| text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain(&method, MAX_METHOD) || !is_plain(&path, MAX_PATH) || path.contains(['?', '#']) {
            return Err(SkipReason::Malformed);
        }
        let address = address.map(|address| address.to_canonical());
        Ok((key, Denial { code: code(&reported_code)?.to_owned(), address, at: self.instant(at)?, method, path }))
    }

    /// When something happened, by an edge's clock.
    fn instant(&self, UnixSeconds(at): UnixSeconds) -> Result<UnixSeconds, SkipReason> {
        let UnixSeconds(now) = self.now;
        if at < now.saturating_sub(OLDEST_SECS) {
            Err(SkipReason::Old)
        } else if at > now.saturating_add(AHEAD_SECS) {
            Err(SkipReason::Ahead)
        } else {
            Ok(UnixSeconds(at.min(now)))
        }
    }
}

fn parsed<'a, T: Deserialize<'a>>(entry: &'a RawValue) -> Result<T, SkipReason> {
    serde_json::from_str(entry.get()).map_err(|_| SkipReason::Malformed)
}

/// A known code. A code of a newer filter counts as [`OTHER_CODE`].
fn code(reported: &str) -> Result<&'static str, SkipReason> {
    if reported.len() > MAX_CODE || !reported.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        return Err(SkipReason::Malformed);
    }
    Ok(DenyReason::from_code(reported).map_or(OTHER_CODE, DenyReason::code))
}

fn count(reported: u64) -> Result<u64, SkipReason> {
    if reported > MAX_COUNT { Err(SkipReason::Malformed) } else { Ok(reported) }
}
