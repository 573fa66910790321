//! A batch of usage, read entry by entry: one that can't be counted is left out, and loses no other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::body::Bytes;
use policy::decide::CODES;
use policy::{KeyId, UnixSeconds};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::edge_name;
use crate::problem::Problem;
use crate::usage::{Batch, BatchName, Counts, DAY, Denial, HOUR, LeftOut, LeftOutCounts, OTHER, SecretMark};

/// The most entries of keys, of denials, and of codes without a key.
const MAX_KEYS: usize = 1_000;
const MAX_DENIALS: usize = 64;
const MAX_CODES: usize = 32;

/// The most letters of a code.
const MAX_CODE: usize = 32;

/// The most secrets of one key.
const MAX_SECRETS: usize = 4;

/// No worker counts more between two batches.
const MAX_COUNT: u64 = 1 << 40;

/// The most bytes of a method, and of a path.
const MAX_METHOD: usize = 16;
const MAX_PATH: usize = 256;

/// What happened longer ago is left out: so long an edge may have been cut off.
const OLDEST_SECS: i64 = 8 * DAY;

/// An edge's clock may be ahead by so much. What it says is later than now happened now.
const AHEAD_SECS: i64 = 300;

/// The body. Fields that aren't known are for newer control planes, and are left alone.
#[derive(Deserialize)]
struct Said<'a> {
    edge: String,
    instance: String,
    worker: String,
    /// From 1 on.
    sequence: u64,
    #[serde(borrow, default)]
    keys: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    denials: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    denied: BTreeMap<String, &'a RawValue>,
    #[serde(borrow)]
    dropped: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct SaidCounts {
    key: KeyId,
    /// Seconds since 1970 of some instant in it.
    hour: i64,
    #[serde(default)]
    allowed: u64,
    #[serde(default)]
    denied: BTreeMap<String, u64>,
    #[serde(default)]
    used: Vec<SaidUse>,
    address: Option<IpAddr>,
}

#[derive(Deserialize)]
struct SaidUse {
    /// 8 hexadecimal digits.
    secret: String,
    at: i64,
}

#[derive(Deserialize)]
struct SaidDenial {
    key: KeyId,
    code: String,
    address: Option<IpAddr>,
    at: i64,
    method: String,
    path: String,
}

#[derive(Deserialize)]
struct SaidDropped {
    #[serde(default)]
    requests: u64,
}

/// Reads a batch that came at `now`, and the edge that it is of.
pub(in crate::feed) fn read(bytes: &Bytes, now: UnixSeconds) -> Result<(String, Batch), Problem> {
    // The messages of serde_json name a place and a type, never a value.
    let said: Said<'_> = serde_json::from_slice(bytes).map_err(|error| Problem::bad_usage(error.to_string()))?;
    let Said { edge, instance, worker, sequence, keys, denials, denied, dropped } = said;
    for (field, name) in [("edge", &edge), ("instance", &instance), ("worker", &worker)] {
        if !edge_name::fits(name) {
            return Err(Problem::bad_usage(format!("`{field}` must be {}", edge_name::EXPECTED)));
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
            .each(dropped, 1, |_, dropped| count(parsed::<SaidDropped>(dropped)?.requests))
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
        let SaidCounts { key, hour, allowed, denied, used, address } = parsed(entry)?;
        if used.len() > MAX_SECRETS || denied.len() > MAX_CODES {
            return Err(LeftOut::Malformed);
        }
        let UnixSeconds(hour) = self.instant(hour)?;
        let hour = UnixSeconds(hour.div_euclid(HOUR).saturating_mul(HOUR));
        let allowed = count(allowed)?;
        // Several codes of newer filters are one here.
        let mut codes: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (name, number) in denied {
            let sum = codes.entry(code(&name)?).or_default();
            *sum = sum.saturating_add(count(number)?);
        }
        let marks = used.into_iter().map(|SaidUse { secret, at }| Ok((mark(&secret)?, at)));
        let marks = marks.collect::<Result<Vec<_>, LeftOut>>()?;
        // The requests count where only the instant can't be right.
        let used = self.each(marks, MAX_SECRETS, |reader, (mark, at)| Ok((mark, reader.instant(at)?)));
        let address = address.map(|address| address.to_canonical());
        Ok(Counts { key, hour, allowed, denied: codes.into_iter().collect(), used, address })
    }

    fn denial(&self, entry: &RawValue) -> Result<(KeyId, Denial), LeftOut> {
        let SaidDenial { key, code: said_code, address, at, method, path } = parsed(entry)?;
        let is_plain = |text: &str, most| text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain(&method, MAX_METHOD) || !is_plain(&path, MAX_PATH) || path.contains(['?', '#']) {
            return Err(LeftOut::Malformed);
        }
        let address = address.map(|address| address.to_canonical());
        Ok((key, Denial { code: code(&said_code)?.to_owned(), address, at: self.instant(at)?, method, path }))
    }

    /// When something happened, by an edge's clock.
    fn instant(&self, at: i64) -> Result<UnixSeconds, LeftOut> {
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

fn mark(secret: &str) -> Result<SecretMark, LeftOut> {
    let digits = Some(secret).filter(|digits| digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    number.map(|number| SecretMark(number.to_be_bytes())).ok_or(LeftOut::Malformed)
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
