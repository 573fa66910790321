//! Roles: what a token may do, by name, and where.

use policy::WorkspaceId;

use crate::store::db::domain::{from_json, json_param};
use crate::store::db::sql::{Column, FromColumn, Kind, Param, ToParam};

/// What a token may do. `operations/permissions.rs` has the permissions of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleName {
    PlatformAdmin,
    PlatformViewer,
    Responder,
    EdgeOperator,
    Metrics,
    WorkspaceAdmin,
    WorkspaceMember,
}

/// The roles that a token may give to tokens that it creates, among those that its own role includes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MayMake {
    #[default]
    Any,
    Only(Vec<RoleName>),
}

/// A role, in the workspace that it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    name: RoleName,
    /// `Some` exactly for the roles of a workspace.
    workspace: Option<WorkspaceId>,
}

impl RoleName {
    /// All roles with their names in the REST API and in the database.
    pub const NAMES: [(Self, &'static str); 7] = [
        (Self::PlatformAdmin, "platform_admin"),
        (Self::PlatformViewer, "platform_viewer"),
        (Self::Responder, "responder"),
        (Self::EdgeOperator, "edge_operator"),
        (Self::Metrics, "metrics"),
        (Self::WorkspaceAdmin, "workspace_admin"),
        (Self::WorkspaceMember, "workspace_member"),
    ];

    /// Whether it is bound to a workspace.
    pub fn is_of_workspace(self) -> bool {
        match self {
            Self::WorkspaceAdmin | Self::WorkspaceMember => true,
            Self::PlatformAdmin | Self::PlatformViewer | Self::Responder | Self::EdgeOperator | Self::Metrics => false,
        }
    }

    /// Its name in the REST API and in the database.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(own, _)| *own == self).map_or("", |(_, name)| name)
    }

    /// The role of this name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, name)| *name == text).map(|(own, _)| *own)
    }
}

impl MayMake {
    pub fn includes(&self, role: RoleName) -> bool {
        match self {
            Self::Any => true,
            Self::Only(roles) => roles.contains(&role),
        }
    }

    /// Whether `other` includes all that this includes.
    pub fn is_within(&self, other: &Self) -> bool {
        match self {
            Self::Any => *other == Self::Any,
            Self::Only(roles) => roles.iter().all(|role| other.includes(*role)),
        }
    }

    /// The names of the roles; `None` for any.
    pub fn names(&self) -> Option<Vec<&'static str>> {
        match self {
            Self::Any => None,
            Self::Only(roles) => Some(roles.iter().map(|role| role.as_str()).collect()),
        }
    }
}

/// A JSON array of names. NULL means any role.
impl ToParam for MayMake {
    const KIND: Kind = Kind::Text;

    fn to_param(&self) -> Param<'_> {
        self.names().map_or(Param::Null(Kind::Text), |names| json_param(&names))
    }
}

impl FromColumn for MayMake {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        if matches!(column, Column::Null) {
            return Ok(Self::Any);
        }
        let names: Vec<String> = from_json(column)?;
        let roles = names.iter().map(|name| RoleName::parse(name).ok_or_else(|| format!("{name} is not a role")));
        roles.collect::<Result<_, _>>().map(Self::Only)
    }
}

impl Role {
    /// The role of the token in the file of --admin-token-file.
    pub const PLATFORM_ADMIN: Self = Self { name: RoleName::PlatformAdmin, workspace: None };

    /// `None`: a role of a workspace without one, or another role with one.
    pub fn new(name: RoleName, workspace: Option<WorkspaceId>) -> Option<Self> {
        (name.is_of_workspace() == workspace.is_some()).then_some(Self { name, workspace })
    }

    /// What it may do.
    pub fn name(self) -> RoleName {
        self.name
    }

    /// The workspace that it is bound to; `None` for all of them.
    pub fn workspace(self) -> Option<WorkspaceId> {
        self.workspace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_bound_to_a_workspace_exactly_if_it_is_one_of_a_workspace() {
        let workspace = WorkspaceId::from_bytes([7; 16]);
        for (name, text) in RoleName::NAMES {
            assert_eq!((RoleName::parse(text), name.as_str()), (Some(name), text));
            let bound = Role::new(name, Some(workspace)).map(Role::workspace);
            assert_eq!(bound, name.is_of_workspace().then_some(Some(workspace)), "{text}");
            assert_eq!(Role::new(name, None).is_some(), !name.is_of_workspace(), "{text}");
        }
    }
}
