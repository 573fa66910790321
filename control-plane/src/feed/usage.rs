//! POST /edge/v1/usage: a worker says what it counted.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::Json;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use policy::decide::CODES;
use policy::{KeyId, UnixSeconds};
use serde::{Deserialize, Serialize};

use super::Feed;
use crate::edge_name;
use crate::problem::Problem;
use crate::usage::{Batch, BatchName, Counts, Denial, NotFolded, OTHER, SecretMark};

/// The most bytes of a body: [`MAX_KEYS`] of the longest entries, and the denials.
const MAX_BODY_BYTES: usize = 512 << 10;

/// The most entries of keys, and of denials.
const MAX_KEYS: usize = 1_000;
const MAX_DENIALS: usize = 64;

/// The most codes of one list, and letters of a code.
const MAX_CODES: usize = 32;
const MAX_CODE: usize = 32;

/// The most secrets of one key.
const MAX_SECRETS: usize = 4;

/// No worker counts more between two batches; so no sum overflows.
const MAX_COUNT: u64 = 1 << 40;

/// The most bytes of a method, and of a path.
const MAX_METHOD: usize = 16;
const MAX_PATH: usize = 256;

/// The body. Fields that aren't known are for newer control planes, and are left alone.
#[derive(Deserialize)]
struct Said {
    edge: String,
    instance: String,
    worker: String,
    /// From 1 on.
    sequence: u64,
    #[serde(default)]
    keys: Vec<SaidCounts>,
    #[serde(default)]
    denials: Vec<SaidDenial>,
    #[serde(default)]
    denied: BTreeMap<String, u64>,
    #[serde(default)]
    dropped: SaidDropped,
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

#[derive(Default, Deserialize)]
struct SaidDropped {
    #[serde(default)]
    requests: u64,
}

/// What is answered: the batch is on disk.
#[derive(Serialize)]
struct Counted {
    sequence: u64,
}

pub(crate) async fn usage(State(feed): State<Feed>, request: Request) -> Result<Response, Problem> {
    let (request, body) = request.into_parts();
    let access = feed.access(&request)?;
    let bytes = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| Problem::too_large(MAX_BODY_BYTES))?;
    let (edge, batch) = read(&bytes)?;
    drop(bytes);
    let BatchName { instance, sequence, .. } = batch.name.clone();
    let refused = |problem: Problem| {
        // Nothing that came with it, but names that have the right form.
        tracing::warn!(edge.id = edge, instance, code = problem.code(), "usage was refused");
        problem
    };
    access.covers(&edge).map_err(refused)?;
    feed.still(&access).map_err(refused)?;
    feed.edges.is_of(&instance, &edge).map_err(|error| refused(error.into()))?;
    feed.usage.fold(batch).await?;
    Ok(Json(Counted { sequence }).into_response())
}

impl From<NotFolded> for Problem {
    fn from(error: NotFolded) -> Self {
        match error {
            NotFolded::Full => Self::too_much_usage(),
            NotFolded::Store(error) => error.into(),
        }
    }
}

pub(super) fn read(bytes: &Bytes) -> Result<(String, Batch), Problem> {
    // The messages of serde_json name a place and a type; what stands there is no secret.
    let said: Said = serde_json::from_slice(bytes).map_err(|error| Problem::bad_usage(error.to_string()))?;
    batch(said).map_err(Problem::bad_usage)
}

fn batch(said: Said) -> Result<(String, Batch), String> {
    let Said { edge, instance, worker, sequence, keys, denials, denied, dropped } = said;
    for (field, name) in [("edge", &edge), ("instance", &instance), ("worker", &worker)] {
        if !edge_name::fits(name) {
            return Err(format!("`{field}` must be {}", edge_name::EXPECTED));
        }
    }
    if sequence == 0 || i64::try_from(sequence).is_err() {
        return Err("`sequence` counts batches from 1 on".to_owned());
    }
    at_most("keys", keys.len(), MAX_KEYS)?;
    at_most("denials", denials.len(), MAX_DENIALS)?;
    let batch = Batch {
        name: BatchName { instance, worker, sequence },
        counts: keys.into_iter().map(counts).collect::<Result<_, _>>()?,
        denials: denials.into_iter().map(denial).collect::<Result<_, _>>()?,
        denied: codes(denied)?,
        dropped: count(dropped.requests)?,
    };
    Ok((edge, batch))
}

fn counts(SaidCounts { key, hour, allowed, denied, used, address }: SaidCounts) -> Result<Counts, String> {
    at_most("used", used.len(), MAX_SECRETS)?;
    let mark = |SaidUse { secret, at }: SaidUse| {
        let digits = Some(&secret).filter(|digits| digits.len() == 8);
        let bytes = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).map(u32::to_be_bytes);
        let bytes = bytes.ok_or("`secret` must be 8 hexadecimal digits")?;
        Ok::<_, String>((SecretMark(bytes), UnixSeconds(at)))
    };
    Ok(Counts {
        key,
        hour: UnixSeconds(hour),
        allowed: count(allowed)?,
        denied: codes(denied)?,
        used: used.into_iter().map(mark).collect::<Result<_, _>>()?,
        address: address.map(|address| address.to_canonical()),
    })
}

fn denial(said: SaidDenial) -> Result<(KeyId, Denial), String> {
    let SaidDenial { key, code: said_code, address, at, method, path } = said;
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if method.len() > MAX_METHOD || !is_plain(&method) {
        return Err(format!("`method` must be at most {MAX_METHOD} visible ASCII characters"));
    }
    if path.len() > MAX_PATH || !is_plain(&path) || path.contains(['?', '#']) {
        return Err(format!("`path` must be at most {MAX_PATH} visible ASCII characters, and have no query"));
    }
    let address = address.map(|address| address.to_canonical());
    let code = code(&said_code)?.to_owned();
    Ok((key, Denial { code, address, at: UnixSeconds(at), method, path }))
}

fn codes(said: BTreeMap<String, u64>) -> Result<Vec<(&'static str, u64)>, String> {
    at_most("denied", said.len(), MAX_CODES)?;
    said.into_iter().map(|(name, number)| Ok((code(&name)?, count(number)?))).collect()
}

/// A code of ours. One of a newer filter counts as [`OTHER`].
fn code(said: &str) -> Result<&'static str, String> {
    if said.len() > MAX_CODE || !said.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        return Err(format!("a code must be at most {MAX_CODE} lower-case letters and `-`"));
    }
    Ok(CODES.into_iter().find(|own| *own == said).unwrap_or(OTHER))
}

fn count(said: u64) -> Result<u64, String> {
    if said > MAX_COUNT { Err(format!("a count may be at most {MAX_COUNT}")) } else { Ok(said) }
}

fn at_most(field: &str, entries: usize, most: usize) -> Result<(), String> {
    if entries > most { Err(format!("`{field}` may have at most {most} entries")) } else { Ok(()) }
}
