//! POST …/keys/import: keys whose secrets somebody else made, by their digests, all or none.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use policy::{Digest, KeyId};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::answer::done;
use crate::api::authority::{AdminOf, PlatformAdmin};
use crate::api::fields::{Fields, Refused};
use crate::api::idempotency::{self, IdempotencyKey};
use crate::api::lines::{Line, Lines};
use crate::api::principal::Principal;
use crate::api::requests::ImportKey;
use crate::api::{Api, values};
use crate::problem::{FieldError, LineErrors, MAX_SHOWN_LINES, Problem};
use crate::secret::LastCharacters;
use crate::store::{Acting, ImportedKey, Made, NewKey, NewSecret, StoreError, Workspace};

/// The most keys of one import: all of it is held in memory, and written down in one transaction.
const MAX_LINES: usize = 100_000;

/// The most of a secret's end that is kept, as of our own.
const MAX_LAST_CHARACTERS: usize = 4;

/// What was imported.
#[derive(Serialize, ToSchema)]
#[schema(as = Imported)]
struct ImportedBody {
    imported: usize,
    /// In the order of the lines.
    #[schema(value_type = Vec<String>)]
    key_ids: Vec<KeyId>,
}

/// Imports digests into a workspace: all lines or none.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/import",
    operation_id = "import_keys",
    request_body(content = ImportKey, content_type = "application/jsonl", description = "A key a line, at most 100,000"),
    responses((status = 200, description = "All were imported", body = ImportedBody))
)]
pub(in crate::api) async fn into_workspace(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    key: IdempotencyKey,
    lines: Lines,
) -> Result<Response, Problem> {
    import(&api, Target::One(at.workspace), at.principal, &key, lines).await
}

/// Imports digests into the workspaces that the lines name: all lines or none.
#[utoipa::path(
    post,
    path = "/keys/import",
    operation_id = "import_keys_anywhere",
    request_body(content = ImportKey, content_type = "application/jsonl", description = "A key a line, at most 100,000"),
    responses((status = 200, description = "All were imported", body = ImportedBody))
)]
pub(in crate::api) async fn into_each(
    State(api): State<Api>,
    PlatformAdmin(principal): PlatformAdmin,
    key: IdempotencyKey,
    lines: Lines,
) -> Result<Response, Problem> {
    import(&api, Target::Named(HashMap::new()), principal, &key, lines).await
}

async fn import(
    api: &Api,
    mut target: Target,
    principal: Principal,
    idempotency_key: &IdempotencyKey,
    mut lines: Lines,
) -> Result<Response, Problem> {
    let acting = principal.acting(&api.clock);
    let (mut read, mut body) = (Read::default(), BodyDigest::new());
    while let Some(Line { number, fields }) = lines.next().await? {
        if read.count == MAX_LINES {
            return Err(Problem::too_many_lines(MAX_LINES));
        }
        read.count = read.count.saturating_add(1);
        if idempotency_key.is_given() {
            body.add(fields.as_ref().ok());
        }
        match fields {
            Ok(fields) => match key(api, &mut target, &mut read.digests, (number, fields), &acting).await? {
                Ok(key) => read.keys.push(key),
                Err(errors) => read.refuse(number, errors),
            },
            Err(error) => read.refuse(number, vec![error]),
        }
    }
    let once = idempotency_key.once(body.finish());
    let make = async {
        let keys = read.finish()?;
        let key_ids: Vec<_> = keys.iter().map(|imported| imported.key.id).collect();
        let changed = api.store.import_keys(keys, Acting { once, ..acting }).await?;
        done(&ImportedBody { imported: key_ids.len(), key_ids }, changed.revision)
    };
    idempotency::answer(api, once, make, async |made| again(&made)).await
}

/// The answer to a repeat: what was imported.
fn again(made: &Made) -> Result<Response, Problem> {
    let key_ids = made.ids.iter().map(|id| id.parse().map_err(|_| Problem::fault())).collect::<Result<Vec<_>, _>>()?;
    done(&ImportedBody { imported: key_ids.len(), key_ids }, made.revision)
}

/// Of all lines in their order, each by the digest of its JSON.
struct BodyDigest(Vec<u8>);

impl BodyDigest {
    fn new() -> Self {
        Self(Vec::new())
    }

    /// `None` is a line that isn't a JSON object, whatever it is: nothing is made of a body with one.
    fn add(&mut self, line: Option<&Fields>) {
        self.0.extend(line.map_or([0; 32], |fields| fields.digest().0));
    }

    fn finish(self) -> Digest {
        Digest::of(&self.0)
    }
}

/// What was read so far.
#[derive(Default)]
struct Read {
    count: usize,
    keys: Vec<ImportedKey>,
    /// Each with its line.
    digests: HashMap<Digest, usize>,
    refused: Vec<LineErrors>,
    refused_count: usize,
}

impl Read {
    fn refuse(&mut self, line: usize, errors: Vec<FieldError>) {
        self.refused_count = self.refused_count.saturating_add(1);
        if self.refused.len() < MAX_SHOWN_LINES {
            self.refused.push(LineErrors { line, errors });
        }
        // Nothing will come of the others.
        self.keys = Vec::new();
    }

    fn finish(self) -> Result<Vec<ImportedKey>, Problem> {
        if self.count == 0 {
            let message = "has no line; send a key a line".to_owned();
            return Err(Problem::invalid(vec![FieldError { field: String::new(), code: "empty", message }]));
        }
        if self.refused_count > 0 {
            return Err(Problem::refused_lines(self.refused, self.refused_count));
        }
        Ok(self.keys)
    }
}

/// Where keys go.
enum Target {
    One(Workspace),
    /// Where each line says; what was asked for before, by id or slug.
    Named(HashMap<String, Option<Workspace>>),
}

impl Target {
    /// The workspace of a line, `None` when that was refused.
    async fn of(&mut self, api: &Api, fields: &mut Fields) -> Result<Option<Workspace>, Problem> {
        match self {
            Self::One(own) => {
                let named = fields.optional("workspace", values::string);
                if named.is_some_and(|name| name != own.slug && name != own.id.to_string()) {
                    let message = "is not the workspace of the path; leave it out, or import at /v1/keys/import";
                    fields.refuse("workspace", Refused::new("unknown-workspace", message));
                }
                Ok(Some(own.clone()))
            }
            Self::Named(known) => {
                let Some(name) = fields.required("workspace", values::string) else { return Ok(None) };
                if !known.contains_key(&name) {
                    let found = match api.store.workspace(values::workspace_name(&name)).await {
                        Ok(workspace) => Some(workspace),
                        Err(StoreError::NotFound) => None,
                        Err(error) => return Err(error.into()),
                    };
                    known.insert(name.clone(), found);
                }
                let found = known.get(&name).cloned().flatten();
                if found.is_none() {
                    fields.refuse(
                        "workspace",
                        Refused::new("unknown-workspace", "must be the id or slug of a workspace"),
                    );
                }
                Ok(found)
            }
        }
    }
}

/// The key of a line, or all that is wrong with it.
async fn key(
    api: &Api,
    target: &mut Target,
    digests: &mut HashMap<Digest, usize>,
    (line, mut fields): (usize, Fields),
    acting: &Acting,
) -> Result<Result<ImportedKey, Vec<FieldError>>, Problem> {
    let workspace = target.of(api, &mut fields).await?;
    let digest = fields.required("digest", digest);
    let name = fields.required("name", values::name);
    let expires_at = values::expiration(&mut fields, acting.at);
    let scopes = fields.optional("scopes", |value| values::scopes(value, &api.config)).unwrap_or_default();
    let allowlist = fields.optional("ip_allowlist", values::allowlist).unwrap_or_default();
    let environment = fields.optional("environment", |value| values::environment(value, &api.config));
    let environment = environment.unwrap_or_else(|| api.config.first_environment());
    let metadata = fields.optional("metadata", values::metadata).unwrap_or_default();
    let last_characters = fields.optional("last_characters", last_characters).flatten();
    if let Some(digest) = digest {
        if let Some(other) = digests.insert(digest, line) {
            fields.refuse("digest", Refused::new("twice", format!("stands in line {other}, too")));
        }
        // The files' tokens are known here alone.
        if api.admin_token.has(&digest) || api.edge_token.has(&digest) {
            let FieldError { field, code, message } = FieldError::refused_digest();
            fields.refuse(&field, Refused::new(code, message));
        }
    }
    let errors = fields.errors();
    if !errors.is_empty() {
        return Ok(Err(errors));
    }
    let (Some(workspace), Some(digest), Some(name), Some(expires_at)) = (workspace, digest, name, expires_at) else {
        return Err(Problem::fault());
    };
    let secret = NewSecret { digest, last_characters: LastCharacters(last_characters.unwrap_or_default()) };
    let id = api.entropy.id(&api.clock)?;
    let key = NewKey { id, name, environment, scopes, allowlist, expires_at, metadata, secret };
    Ok(Ok(ImportedKey { line, workspace: workspace.id, key }))
}

/// SHA-256 of a secret's text: 64 hexadecimal digits, of either case.
fn digest(value: Value) -> Result<Digest, Refused> {
    let refused = || Refused::new("bad-digest", "must be the SHA-256 of a secret's text: 64 hexadecimal digits");
    let text = values::string(value)?;
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return Err(refused());
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let [high, low] = pair.map(digit);
        *byte = high.zip(low).map(|(high, low)| (high << 4) | low).ok_or_else(refused)?;
    }
    Ok(Digest(bytes))
}

/// At most four: whoever sends the whole secret by mistake is told.
fn last_characters(value: Value) -> Result<Option<String>, Refused> {
    let Some(text) = values::optional_string(value)? else { return Ok(None) };
    if text.chars().count() > MAX_LAST_CHARACTERS {
        let message = format!("must have at most {MAX_LAST_CHARACTERS} characters; the whole secret has no place here");
        return Err(Refused::new("too-long", message));
    }
    if text.chars().any(char::is_control) {
        return Err(Refused::new("bad-characters", "has control characters; leave them out"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_digest_is_64_hexadecimal_digits() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for text in [abc.to_owned(), abc.to_uppercase()] {
            assert_eq!(digest(json!(text)).unwrap(), Digest::of(b"abc"));
        }
        for wrong in [
            json!(abc.replacen('b', "", 1)),
            json!(format!("{abc}00")),
            json!(abc.replacen('b', "g", 1)),
            json!("é".repeat(32)),
            json!(""),
        ] {
            assert_eq!(digest(wrong.clone()).unwrap_err().code, "bad-digest", "{wrong}");
        }
        assert_eq!(digest(json!(null)).unwrap_err().code, "wrong-type");
    }
}
