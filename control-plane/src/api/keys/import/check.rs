//! The two passes over an import's lines: the first checks all of them, the second makes keys one at a time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use policy::{Digest, KeyId};

use super::line::{LineReader, Read};
use crate::api::Api;
use crate::api::fields::{Fields, Refused};
use crate::api::lines::{Line, Lines};
use crate::problem::{FieldError, LineErrors, MAX_SHOWN_LINES, Problem};
use crate::store::{Import, ImportedKey, StoreError};

/// The maximum number of lines of an import, which holds a digest and an id for each in memory.
const MAX_LINES: usize = 100_000;

/// A body whose lines were all read.
pub(super) struct Checked {
    /// Of the query and the body; `None` if it wasn't needed.
    pub(super) digest: Option<Digest>,
    /// Lines that aren't blank.
    pub(super) lines: usize,
    pub(super) outcome: Result<Import, Refusal>,
}

/// Why nothing is imported.
pub(super) enum Refusal {
    /// Because of the body.
    Lines(Problem),
    /// Because digests are known already.
    Taken(StoreError),
}

/// The result of the first pass so far.
#[derive(Default)]
struct Found {
    lines: usize,
    ids: Vec<KeyId>,
    /// Each with the number of its line.
    digests: HashMap<Digest, usize>,
    /// Lines with the digest of a token in one of the control plane's files, which the store doesn't know.
    taken: Vec<usize>,
    refused: Vec<LineErrors>,
    refused_count: usize,
}

/// The digest of the query and all lines in order, computed from the digest of each line's JSON.
struct BodyDigest(Vec<u8>);

/// The keys of lines that all passed the check, in order. Only one is in memory at a time.
struct Keys {
    lines: Lines,
    reader: LineReader,
    ids: std::vec::IntoIter<KeyId>,
}

/// The digest of the query and all lines, and the number of lines, without checking them.
pub(super) fn digest(query: Digest, mut lines: Lines) -> Result<(Digest, usize), Problem> {
    let (mut digest, mut number) = (BodyDigest::new(query), 0_usize);
    while let Some(line) = lines.next()? {
        number = number.saturating_add(1);
        digest.add(line.fields.as_ref().ok());
    }
    Ok((digest.finish(), number))
}

/// Reads all lines, and keeps little of each. `query` is the query's digest, if the digest of query and body is needed.
/// An error means that the body wasn't read to its end.
pub(super) fn check(
    api: &Api,
    query: Option<Digest>,
    mut lines: Lines,
    mut reader: LineReader,
) -> Result<Checked, Problem> {
    let (mut found, mut body) = (Found::default(), query.map(BodyDigest::new));
    while let Some(Line { number, fields }) = lines.next()? {
        if found.lines == MAX_LINES {
            return Err(Problem::too_many_lines(MAX_LINES));
        }
        found.lines = found.lines.saturating_add(1);
        if let Some(body) = &mut body {
            body.add(fields.as_ref().ok());
        }
        let read = match fields {
            Ok(fields) => {
                let look = |digest: &Digest, fields: &mut Fields| found.look(api, digest, number, fields);
                reader.read(fields, look, || Ok(api.entropy.id(&api.clock)?))?
            }
            Err(error) => Read::Refused(vec![error]),
        };
        match read {
            Read::Key(imported) => found.ids.push(imported.key.id),
            Read::LeftOut => {}
            Read::Refused(errors) => found.refuse(number, errors),
        }
    }
    let outcome = match found.refusal() {
        Some(refusal) => Err(refusal),
        None => {
            let keys = Keys { lines: lines.again()?, reader, ids: found.ids.clone().into_iter() };
            let mut digests: Vec<_> = found.digests.into_iter().collect();
            digests.sort_unstable_by_key(|(_, line)| *line);
            Ok(Import { of_tenant: None, ids: found.ids, digests, keys: Box::new(keys) })
        }
    };
    Ok(Checked { digest: body.map(BodyDigest::finish), lines: found.lines, outcome })
}

impl Found {
    /// Refuses a digest that an earlier line has.
    fn look(&mut self, api: &Api, digest: &Digest, line: usize, fields: &mut Fields) {
        match self.digests.entry(*digest) {
            Entry::Occupied(mut other) => {
                let other = other.insert(line);
                fields.refuse("digest", Refused::new("twice", format!("stands in line {other}, too")));
            }
            Entry::Vacant(free) => {
                free.insert(line);
            }
        }
        if api.admin_token.has(digest) || api.edge_token.has(digest) {
            self.taken.push(line);
        }
    }

    fn refuse(&mut self, line: usize, errors: Vec<FieldError>) {
        self.refused_count = self.refused_count.saturating_add(1);
        if self.refused.len() < MAX_SHOWN_LINES {
            self.refused.push(LineErrors { line, errors });
        }
    }

    /// Why nothing may be imported; `None` if all lines are valid.
    fn refusal(&mut self) -> Option<Refusal> {
        if self.lines == 0 {
            let message = "has no line; send a key a line".to_owned();
            let error = FieldError { field: String::new(), code: "empty", message };
            return Some(Refusal::Lines(Problem::invalid(vec![error])));
        }
        if self.refused_count > 0 {
            let refused = std::mem::take(&mut self.refused);
            return Some(Refusal::Lines(Problem::refused_lines(refused, self.refused_count)));
        }
        if !self.taken.is_empty() {
            let lines = self.taken.iter().map(|line| (*line, None)).collect();
            return Some(Refusal::Taken(StoreError::DigestsTaken { lines }));
        }
        None
    }
}

impl BodyDigest {
    fn new(query: Digest) -> Self {
        Self(query.0.to_vec())
    }

    /// `None` is any line that isn't a JSON object: a body with such a line isn't imported.
    fn add(&mut self, line: Option<&Fields>) {
        self.0.extend(line.map_or([0; 32], |fields| fields.digest().0));
    }

    fn finish(self) -> Digest {
        Digest::of(&self.0)
    }
}

impl Iterator for Keys {
    type Item = Result<ImportedKey, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.lines.next() {
                Ok(line) => line?,
                Err(_) => {
                    return Some(Err(StoreError::Unavailable("the body of an import can't be read again".into())));
                }
            };
            let ids = &mut self.ids;
            let read = line
                .fields
                .ok()
                .map(|fields| self.reader.read(fields, |_, _| {}, || ids.next().ok_or_else(Problem::fault)));
            match read {
                Some(Ok(Read::Key(imported))) => return Some(Ok(*imported)),
                Some(Ok(Read::LeftOut)) => {}
                None | Some(Ok(Read::Refused(_)) | Err(_)) => {
                    return Some(Err(StoreError::Fault("a line of an import reads otherwise than before".into())));
                }
            }
        }
    }
}
