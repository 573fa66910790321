//! The two passes over an import's lines: the first checks all of them, the second creates keys one at a time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use policy::{Digest, KeyId};

use super::line::{LineOutcome, LineReader};
use crate::api::Api;
use crate::api::json_lines::{Line, Lines};
use crate::operations::fields::{FieldError, Fields, InvalidValue};
use crate::store::{Import, ImportedKey, StoreError};
use crate::web::problem::{LineErrors, MAX_SHOWN_LINES, Problem};

/// The maximum number of lines of an import, which holds a digest and an id for each in memory.
const MAX_LINES: usize = 100_000;

/// The result of the first pass, after all lines were read.
pub(super) struct CheckedImport {
    /// The digest of query and body; `None` if it wasn't needed.
    pub(super) digest: Option<Digest>,
    /// Lines that aren't blank.
    pub(super) lines: usize,
    pub(super) outcome: Result<Import, ImportRefusal>,
}

/// Why nothing is imported.
pub(super) enum ImportRefusal {
    /// Lines are invalid.
    Lines(Problem),
    /// Digests are taken.
    Taken(StoreError),
}

/// The state of the first pass.
#[derive(Default)]
struct FirstPass {
    lines: usize,
    ids: Vec<KeyId>,
    /// Each digest with the number of its line.
    digests: HashMap<Digest, usize>,
    /// Lines with the digest of a token in one of the control plane's files, which the store doesn't know.
    taken: Vec<usize>,
    refused: Vec<LineErrors>,
    refused_count: usize,
}

/// The digest of the query and all lines in order, computed from the digest of each line's JSON.
struct BodyDigest(Vec<u8>);

/// The keys of lines that all passed the check, in order. Only one is in memory at a time.
struct ImportedKeys {
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

/// Reads all lines, and keeps only digests and ids. `query` is the query's digest, if the digest of query and body is
/// needed. An error means that the body wasn't read to its end.
pub(super) fn check(
    api: &Api,
    query: Option<Digest>,
    mut lines: Lines,
    mut reader: LineReader,
) -> Result<CheckedImport, Problem> {
    let (mut pass, mut body) = (FirstPass::default(), query.map(BodyDigest::new));
    while let Some(Line { number, fields }) = lines.next()? {
        if pass.lines == MAX_LINES {
            return Err(Problem::too_many_lines(MAX_LINES));
        }
        pass.lines = pass.lines.saturating_add(1);
        if let Some(body) = &mut body {
            body.add(fields.as_ref().ok());
        }
        let read = match fields {
            Ok(fields) => {
                let check_digest =
                    |digest: &Digest, fields: &mut Fields| pass.check_digest(api, digest, number, fields);
                reader.read(fields, check_digest, || Ok(api.entropy.id(&api.clock)?))?
            }
            Err(error) => LineOutcome::Refused(vec![error]),
        };
        match read {
            LineOutcome::Key(imported) => pass.ids.push(imported.key.id),
            LineOutcome::Skipped => {}
            LineOutcome::Refused(errors) => pass.refuse(number, errors),
        }
    }
    let outcome = match pass.refusal() {
        Some(refusal) => Err(refusal),
        None => {
            let keys = ImportedKeys { lines: lines.rewound()?, reader, ids: pass.ids.clone().into_iter() };
            let mut digests: Vec<_> = pass.digests.into_iter().collect();
            digests.sort_unstable_by_key(|(_, line)| *line);
            Ok(Import { of_tenant: None, ids: pass.ids, digests, keys: Box::new(keys) })
        }
    };
    Ok(CheckedImport { digest: body.map(BodyDigest::finish), lines: pass.lines, outcome })
}

impl FirstPass {
    /// Refuses a digest that an earlier line has, and records one that a token file has.
    fn check_digest(&mut self, api: &Api, digest: &Digest, line: usize, fields: &mut Fields) {
        match self.digests.entry(*digest) {
            Entry::Occupied(mut other) => {
                let other = other.insert(line);
                fields.refuse("digest", InvalidValue::new("twice", format!("is also in line {other}")));
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
    fn refusal(&mut self) -> Option<ImportRefusal> {
        if self.lines == 0 {
            let error = FieldError::new("", "empty", "has no lines; send one key per line");
            return Some(ImportRefusal::Lines(Problem::invalid(vec![error])));
        }
        if self.refused_count > 0 {
            let refused = std::mem::take(&mut self.refused);
            return Some(ImportRefusal::Lines(Problem::refused_lines(refused, self.refused_count)));
        }
        if !self.taken.is_empty() {
            let lines = self.taken.iter().map(|line| (*line, None)).collect();
            return Some(ImportRefusal::Taken(StoreError::DigestsTaken { lines }));
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

impl Iterator for ImportedKeys {
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
                Some(Ok(LineOutcome::Key(imported))) => return Some(Ok(*imported)),
                Some(Ok(LineOutcome::Skipped)) => {}
                None | Some(Ok(LineOutcome::Refused(_)) | Err(_)) => {
                    return Some(Err(StoreError::Fault("a line of an import changed between the two passes".into())));
                }
            }
        }
    }
}
