//! Admin tokens: the role of each, by the digest of its text.

use std::collections::HashMap;

use policy::{AdminTokenId, Allowlist, Digest, Revision, UnixSeconds, WorkspaceId};
use serde_json::{Map, Value, json};

use super::roles::{MayMake, Role, RoleName};
use super::tokens::{self, Token, TokenQuery};
use crate::base::instant;
use crate::base::secret::LastCharacters;
use crate::store::db::sql::{Optional as _, Row, SqlError, params};
use crate::store::history::audit::{Audited, EventTarget};
use crate::store::history::changes::Change;
use crate::store::{
    AtRevision, ChangeContext, NewSecret, Page, Precondition, Store, StoreError, TOKEN_FILE_ID, TOKEN_FILE_NAME,
};

/// A token for the REST API. Not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken {
    pub id: AdminTokenId,
    pub last_characters: LastCharacters,
    pub name: String,
    pub role: Role,
    /// The addresses that it may be used from.
    pub allowlist: Allowlist,
    pub may_make: MayMake,
    pub created_at: UnixSeconds,
    pub created_by: String,
    /// `None`: never.
    pub expires_at: Option<UnixSeconds>,
    /// To within a minute.
    pub last_used_at: Option<UnixSeconds>,
    pub revoked_at: Option<UnixSeconds>,
    /// Of its last change.
    pub revision: Revision,
}

impl AdminToken {
    pub fn is_expired(&self, now: UnixSeconds) -> bool {
        self.expires_at.is_some_and(|at| at.is_reached(now))
    }
}

/// A token to create.
#[derive(Clone, Debug)]
pub struct NewAdminToken {
    pub id: AdminTokenId,
    pub name: String,
    pub role: Role,
    pub allowlist: Allowlist,
    pub may_make: MayMake,
    pub expires_at: Option<UnixSeconds>,
    pub secret: NewSecret,
}

impl Store {
    pub async fn create_admin_token(
        &self,
        new: NewAdminToken,
        context: ChangeContext,
    ) -> Result<AtRevision<AdminToken>, StoreError> {
        self.change(context, move |change| create(change, &new)).await
    }

    /// The token with this id. `NotFound` if it was revoked, or if it isn't bound to `within`, when that is given.
    pub async fn admin_token(&self, id: AdminTokenId, within: Option<WorkspaceId>) -> Result<AdminToken, StoreError> {
        self.engine.read(move |sql| tokens::find(sql, id, within)).await
    }

    /// A page of the tokens that aren't revoked, oldest first: all of them, or those bound to `within`.
    pub async fn list_admin_tokens(
        &self,
        query: TokenQuery<AdminTokenId>,
        within: Option<WorkspaceId>,
    ) -> Result<Page<AdminToken>, StoreError> {
        self.engine.read(move |sql| tokens::list(sql, &query, within)).await
    }

    /// Revokes a token for good, from its next request on.
    pub async fn revoke_admin_token(
        &self,
        id: AdminTokenId,
        within: Option<WorkspaceId>,
        precondition: Precondition,
        context: ChangeContext,
    ) -> Result<AtRevision<()>, StoreError> {
        self.change(context, move |change| tokens::revoke::<AdminToken>(change, id, within, &precondition)).await
    }

    /// The token with this digest, including revoked and expired ones.
    pub async fn admin_token_of(&self, digest: Digest) -> Result<Option<AdminToken>, StoreError> {
        self.engine.read(move |sql| tokens::find_digest(sql, digest)).await
    }

    /// The names of the actors with these ids, as stored in `created_by`, including revoked tokens until their rows are
    /// removed. Costs one look-up for each id.
    pub async fn actor_names(&self, ids: Vec<String>) -> Result<HashMap<String, String>, StoreError> {
        self.engine
            .read(move |sql| {
                let mut query = sql.prepare("SELECT name FROM admin_tokens WHERE id = ?1")?;
                let mut names = HashMap::new();
                for text in ids {
                    let name = match text.parse::<AdminTokenId>() {
                        Ok(id) => query.query_row(params![id], |row| row.get(0)).optional()?,
                        Err(_) => (text == TOKEN_FILE_ID).then(|| TOKEN_FILE_NAME.to_owned()),
                    };
                    names.extend(name.map(|name| (text, name)));
                }
                Ok(names)
            })
            .await
    }

    /// Records that a token was used. This is not a change: it has no revision and no audit event.
    pub async fn record_admin_token_use(&self, id: AdminTokenId, at: UnixSeconds) -> Result<(), StoreError> {
        self.engine.write(move |write| tokens::record_use::<AdminToken>(write, id, at)).await
    }
}

fn create(change: &Change<'_>, new: &NewAdminToken) -> Result<AtRevision<AdminToken>, StoreError> {
    let inserted = change
        .sql()
        .prepare(
            "INSERT INTO admin_tokens (id, digest, last_characters, name, role, workspace_id, created_at, created_by,
                                       expires_at, revision, ip_allowlist, may_make)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT (digest) DO NOTHING",
        )?
        .execute(params![
            new.id,
            new.secret.digest,
            new.secret.last_characters,
            new.name,
            new.role.name().as_str(),
            new.role.workspace(),
            change.at(),
            change.context().actor.id,
            new.expires_at,
            change.revision()?,
            new.allowlist,
            new.may_make
        ])?;
    tokens::record_created(change, new.id, inserted)
}

impl Token for AdminToken {
    type Id = AdminTokenId;

    const TABLE: &'static str = "admin_tokens";
    const COLUMNS: &'static str = "id, last_characters, name, role, workspace_id, created_at, created_by,
        expires_at, last_used_at, revoked_at, revision, ip_allowlist, may_make";
    const CREATED: &'static str = "admin-token.create";
    const REVOKED: &'static str = "admin-token.revoke";

    fn read(row: &Row<'_>) -> Result<Self, SqlError> {
        Ok(Self {
            id: row.get(0)?,
            last_characters: row.get(1)?,
            name: row.get(2)?,
            role: role(row)?,
            created_at: row.get(5)?,
            created_by: row.get(6)?,
            expires_at: row.get(7)?,
            last_used_at: row.get(8)?,
            revoked_at: row.get(9)?,
            revision: row.get(10)?,
            allowlist: row.get(11)?,
            may_make: row.get(12)?,
        })
    }

    fn revision(&self) -> Revision {
        self.revision
    }
}

fn role(row: &Row<'_>) -> Result<Role, SqlError> {
    let workspace = row.get::<Option<WorkspaceId>>(4)?;
    let role = RoleName::parse(row.text(3)?).and_then(|name| Role::new(name, workspace));
    role.ok_or_else(|| SqlError::invalid_column(3, "not a role"))
}

impl Audited for AdminToken {
    fn target(&self) -> EventTarget {
        EventTarget { kind: "admin_token", id: self.id.to_string(), name: self.name.clone() }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        self.role.workspace()
    }

    fn fields(&self) -> Map<String, Value> {
        let fields = [
            ("name", json!(self.name)),
            ("role", json!(self.role.name().as_str())),
            ("last_characters", json!(self.last_characters.0)),
            ("expires_at", json!(self.expires_at.map(instant::text))),
            ("ip_allowlist", json!(self.allowlist)),
            ("may_make", json!(self.may_make.names())),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
