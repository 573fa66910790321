//! Workspaces: the tenants that keys belong to.

use policy::WorkspaceId;
use serde_json::{Map, Value, json};

use crate::store::db::sql::{Optional as _, Row, Sql, SqlError, params};
use crate::store::history::audit::{Audited, Event, EventTarget};
use crate::store::history::changes::Change;
use crate::store::{
    AtRevision, ChangeContext, Page, Precondition, Store, StoreError, Workspace, WorkspaceName, WorkspaceQuery,
};

/// A workspace to create.
#[derive(Clone, Debug)]
pub struct NewWorkspace {
    pub id: WorkspaceId,
    pub slug: String,
    pub name: String,
}

impl Store {
    /// Creates a workspace; `SlugTaken` if another has its slug.
    pub async fn create_workspace(
        &self,
        new: NewWorkspace,
        context: ChangeContext,
    ) -> Result<AtRevision<Workspace>, StoreError> {
        self.change(context, move |change| create(change, &new)).await
    }

    /// The workspace with this id or slug.
    pub async fn workspace(&self, name: WorkspaceName) -> Result<Workspace, StoreError> {
        self.engine.read(move |sql| find(sql, &name)).await
    }

    /// A page of all workspaces, oldest first.
    pub async fn list_workspaces(&self, query: WorkspaceQuery) -> Result<Page<Workspace>, StoreError> {
        self.engine.read(move |sql| list(sql, &query)).await
    }

    /// Renames a workspace; `None` leaves the name as it is. Edges have no names, so their part of the change is empty.
    pub async fn rename_workspace(
        &self,
        id: WorkspaceId,
        name: Option<String>,
        precondition: Precondition,
        context: ChangeContext,
    ) -> Result<AtRevision<Workspace>, StoreError> {
        self.change(context, move |change| rename(change, id, name, &precondition)).await
    }
}

fn create(change: &Change<'_>, new: &NewWorkspace) -> Result<AtRevision<Workspace>, StoreError> {
    let inserted = change
        .sql()
        .prepare(
            "INSERT INTO workspaces (id, slug, name, created_at, created_by, updated_at, revision)
             VALUES (?1, ?2, ?3, ?4, ?5, ?4, ?6) ON CONFLICT (slug) DO NOTHING",
        )?
        .execute(params![new.id, new.slug, new.name, change.at(), change.context().actor.id, change.revision()?])?;
    if inserted == 0 {
        return Err(StoreError::SlugTaken);
    }
    let value = find(change.sql(), &WorkspaceName::Id(new.id))?;
    let revision = change.record(&Event::created("workspace.create", &value), &[])?;
    Ok(AtRevision { value, revision })
}

fn rename(
    change: &Change<'_>,
    id: WorkspaceId,
    name: Option<String>,
    precondition: &Precondition,
) -> Result<AtRevision<Workspace>, StoreError> {
    let by_id = WorkspaceName::Id(id);
    let workspace = find(change.sql(), &by_id)?;
    precondition.check(workspace.revision)?;
    let Some(name) = name.filter(|name| *name != workspace.name) else {
        return Ok(AtRevision { revision: workspace.revision, value: workspace });
    };
    change
        .sql()
        .prepare("UPDATE workspaces SET name = ?2, updated_at = ?3, revision = ?4 WHERE id = ?1")?
        .execute(params![id, name, change.at(), change.revision()?])?;
    let value = find(change.sql(), &by_id)?;
    let revision = change.record(&Event::changed("workspace.update", &workspace, &value), &[])?;
    Ok(AtRevision { value, revision })
}

pub(crate) fn find(sql: Sql<'_>, name: &WorkspaceName) -> Result<Workspace, StoreError> {
    let found = match name {
        WorkspaceName::Id(id) => sql
            .prepare(
                "SELECT id, slug, name, created_at, created_by, updated_at, revision FROM workspaces WHERE id = ?1",
            )?
            .query_row(params![id], workspace),
        WorkspaceName::Slug(slug) => sql
            .prepare(
                "SELECT id, slug, name, created_at, created_by, updated_at, revision FROM workspaces WHERE slug = ?1",
            )?
            .query_row(params![slug], workspace),
    };
    found.optional()?.ok_or(StoreError::NotFound)
}

fn list(sql: Sql<'_>, query: &WorkspaceQuery) -> Result<Page<Workspace>, StoreError> {
    // Ids sort by creation. Sixteen zero bytes are not an id, and sort before all ids.
    let after = query.after.unwrap_or(WorkspaceId::from_bytes([0; 16]));
    let mut statement = sql.prepare(
        "SELECT id, slug, name, created_at, created_by, updated_at, revision FROM workspaces
         WHERE id > ?1 AND (?3 IS NULL OR id = ?3) ORDER BY id LIMIT ?2",
    )?;
    let rows = statement.query_map(params![after, query.limit.get().saturating_add(1), query.within], workspace)?;
    Ok(Page::cut(rows, query.limit))
}

fn workspace(row: &Row<'_>) -> Result<Workspace, SqlError> {
    Ok(Workspace {
        id: row.get(0)?,
        slug: row.get(1)?,
        name: row.get(2)?,
        created_at: row.get(3)?,
        created_by: row.get(4)?,
        updated_at: row.get(5)?,
        revision: row.get(6)?,
    })
}

impl Audited for Workspace {
    fn target(&self) -> EventTarget {
        EventTarget { kind: "workspace", id: self.id.to_string(), name: self.name.clone() }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        Some(self.id)
    }

    fn fields(&self) -> Map<String, Value> {
        let fields = [("name", json!(self.name)), ("slug", json!(self.slug))];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
