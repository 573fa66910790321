//! The store's objects, as the rest of the program sees them.

use std::net::IpAddr;

use policy::{Allowlist, Environment, KeyId, Revision, Scopes, UnixSeconds, WorkspaceId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{KeyUse, OnceKey, StoreError};
use crate::base::secret::LastCharacters;

/// Custom fields of a key, a JSON object.
pub type Metadata = Map<String, Value>;

/// Who makes a change, when, and by which request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeContext {
    pub actor: Actor,
    pub at: UnixSeconds,
    /// The remote address of the connection.
    pub address: Option<IpAddr>,
    pub request_id: Option<String>,
    /// Set if the change must be made only once.
    pub once: Option<OnceKey>,
}

/// The id of [`ActorKind::System`].
pub(crate) const SYSTEM_ID: &str = "system";

/// The actor's id and name in the audit log and in `created_by` for the token in the token file.
pub const TOKEN_FILE_ID: &str = "platform-admin";
pub const TOKEN_FILE_NAME: &str = "token file";

impl ChangeContext {
    /// For changes that the control plane makes on its own.
    pub fn system(at: UnixSeconds) -> Self {
        let actor = Actor { kind: ActorKind::System, id: SYSTEM_ID.to_owned(), name: "control plane".to_owned() };
        Self { actor, at, address: None, request_id: None, once: None }
    }
}

/// Who made a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Actor {
    pub kind: ActorKind,
    /// The same as in `created_by`.
    pub id: String,
    pub name: String,
}

/// The kind of an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// Without authentication: the control plane itself.
    System,
    /// The token in the file of --admin-token-file.
    TokenFile,
    /// A token that was created over REST.
    AdminToken,
}

/// A value, and the revision as of which it holds: the result of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtRevision<T> {
    pub value: T,
    pub revision: Revision,
}

/// The two ways to name a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkspaceName {
    Id(WorkspaceId),
    Slug(String),
}

/// The tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    pub id: WorkspaceId,
    pub slug: String,
    pub name: String,
    pub created_at: UnixSeconds,
    pub created_by: String,
    pub updated_at: UnixSeconds,
    /// Of its last change.
    pub revision: Revision,
}

/// A key: whose it is, what it may do, until when. Not secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub id: KeyId,
    pub workspace: WorkspaceId,
    pub name: String,
    pub environment: Environment,
    /// Of the current secret.
    pub last_characters: LastCharacters,
    pub active: bool,
    pub scopes: Scopes,
    pub allowlist: Allowlist,
    /// `None`: never.
    pub expires_at: Option<UnixSeconds>,
    pub metadata: Metadata,
    pub created_at: UnixSeconds,
    pub created_by: String,
    pub updated_at: UnixSeconds,
    pub rotated_at: Option<UnixSeconds>,
    /// The end of the overlap that the last rotation requested; it may have passed.
    pub previous_until: Option<UnixSeconds>,
    pub used: KeyUse,
    /// Of its last change.
    pub revision: Revision,
}

/// Whether a key can be used. Expired takes precedence, because it can't be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Active,
    Inactive,
    Expired,
}

impl Status {
    pub(super) fn of(active: bool, is_expired: bool) -> Self {
        match (is_expired, active) {
            (true, _) => Self::Expired,
            (false, false) => Self::Inactive,
            (false, true) => Self::Active,
        }
    }
}

impl Key {
    pub fn is_expired(&self, now: UnixSeconds) -> bool {
        self.expires_at.is_some_and(|at| at.is_reached(now))
    }

    pub fn status(&self, now: UnixSeconds) -> Status {
        Status::of(self.active, self.is_expired(now))
    }

    /// When the previous secret ends; `None` if there is none that is still valid.
    pub fn previous_secret_expires_at(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        self.previous_until.filter(|until| !until.is_reached(now))
    }

    /// When the previous secret was last used; `None` if there is none that is still valid.
    pub fn previous_secret_last_used_at(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        self.used.previous_secret_at.filter(|_| self.previous_secret_expires_at(now).is_some())
    }
}

/// The fields to replace in a key; `None` leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyPatch {
    pub name: Option<String>,
    pub scopes: Option<Scopes>,
    pub allowlist: Option<Allowlist>,
    /// Merged into the existing metadata (RFC 7396); `Some(Null)` empties it.
    pub metadata: Option<Value>,
}

/// Which revisions a change may be based on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The current one, whichever it is.
    None,
    /// Only one of these.
    OneOf(Vec<Revision>),
}

impl Precondition {
    /// `Stale` unless the change may be based on `current`. Call it in the change's own transaction.
    pub(super) fn check(&self, current: Revision) -> Result<(), StoreError> {
        match self {
            Self::OneOf(revisions) if !revisions.contains(&current) => Err(StoreError::Stale { current }),
            Self::None | Self::OneOf(_) => Ok(()),
        }
    }
}

/// RFC 7396: `patch` merged into `target`.
pub(crate) fn merge(target: &mut Metadata, patch: &Metadata) {
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.remove(name)),
            Value::Object(inner) => {
                let slot = target.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(object) = slot {
                    merge(object, inner);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                target.insert(name.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_merge_follows_rfc_7396() {
        for (target, patch, merged) in [
            (r#"{"a":1}"#, r#"{"b":2}"#, r#"{"a":1,"b":2}"#),
            (r#"{"a":1}"#, r#"{"a":null}"#, r"{}"),
            (r#"{"a":[1,2]}"#, r#"{"a":[3]}"#, r#"{"a":[3]}"#),
            (r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"b":null,"d":3}}"#, r#"{"a":{"c":2,"d":3}}"#),
            (r#"{"a":1}"#, r#"{"a":{"b":{"c":null}}}"#, r#"{"a":{"b":{}}}"#),
        ] {
            let mut object: Metadata = serde_json::from_str(target).unwrap();
            merge(&mut object, &serde_json::from_str(patch).unwrap());
            assert_eq!(serde_json::to_string(&object).unwrap(), merged, "{target} {patch}");
        }
    }
}
