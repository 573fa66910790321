//! What each role may do: the one table of permissions.

use crate::store::{Role, RoleName};

/// Declares the permissions, and a type for each: an extractor names one in a handler's arguments.
macro_rules! permissions {
    ($($(#[doc = $doc:literal])+ $name:ident => $may:literal,)+) => {
        /// Something that a principal may do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Permission {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Permission {
            /// All of them.
            const ALL: &[Self] = &[$(Self::$name),+];

            /// What it allows, after "a token that may".
            pub(crate) fn may(self) -> &'static str {
                match self {
                    $(Self::$name => $may,)+
                }
            }
        }

        /// A type for each permission.
        pub(crate) mod may {
            $(
                $(#[doc = $doc])+
                pub(crate) struct $name;

                impl super::Needed for $name {
                    const PERMISSION: super::Permission = super::Permission::$name;
                }
            )+
        }
    };
}

permissions! {
    /// Workspaces, their keys, and how these are used.
    ReadKeys => "read keys",
    /// Create, change, rotate, activate, import and delete keys.
    ManageKeys => "manage keys",
    /// Deactivate keys, and end overlaps.
    RevokeKeys => "deactivate keys",
    /// Find out what a text belongs to.
    IdentifySecrets => "identify secrets",
    /// Rename a workspace.
    RenameWorkspaces => "change workspaces",
    /// Create a workspace.
    CreateWorkspaces => "create workspaces",
    /// The audit log.
    ReadAudit => "read the audit log",
    /// Admin tokens.
    ReadAdminTokens => "read admin tokens",
    /// Create and revoke admin tokens, within the creator's own permissions.
    ManageAdminTokens => "manage admin tokens",
    /// Edges, and whether a change is enforced.
    ReadEdges => "read the state of edges",
    /// Remove instances of edges.
    ManageEdges => "manage edges",
    /// Edge tokens.
    ReadEdgeTokens => "read edge tokens",
    /// Create and revoke edge tokens.
    ManageEdgeTokens => "manage edge tokens",
    /// The control plane's metrics.
    ReadMetrics => "read metrics",
}

/// A permission as a type.
pub(crate) trait Needed {
    const PERMISSION: Permission;
}

/// The permissions of a role. Those of a role of a workspace hold in that workspace.
pub(crate) fn permissions(role: RoleName) -> &'static [Permission] {
    use Permission::{
        IdentifySecrets, ManageAdminTokens, ManageEdgeTokens, ManageEdges, ManageKeys, ReadAdminTokens, ReadAudit,
        ReadEdgeTokens, ReadEdges, ReadKeys, ReadMetrics, RenameWorkspaces, RevokeKeys,
    };
    match role {
        RoleName::PlatformAdmin => Permission::ALL,
        RoleName::PlatformViewer => &[ReadKeys, ReadAudit, ReadAdminTokens, ReadEdges, ReadEdgeTokens, ReadMetrics],
        RoleName::Responder => &[ReadKeys, RevokeKeys, IdentifySecrets, ReadAudit, ReadEdges],
        RoleName::EdgeOperator => &[ReadEdges, ManageEdges, ReadEdgeTokens, ManageEdgeTokens, ReadMetrics],
        RoleName::Metrics => &[ReadMetrics],
        RoleName::WorkspaceAdmin => &[
            ReadKeys,
            ManageKeys,
            RevokeKeys,
            IdentifySecrets,
            RenameWorkspaces,
            ReadAudit,
            ReadAdminTokens,
            ManageAdminTokens,
            ReadEdges,
        ],
        RoleName::WorkspaceMember => &[ReadKeys, ReadEdges],
    }
}

/// Whether a role has all permissions of another, wherever that has them.
pub(crate) fn includes(own: Role, other: Role) -> bool {
    let has = permissions(own.name());
    let reaches = own.workspace().is_none_or(|own| other.workspace() == Some(own));
    reaches && permissions(other.name()).iter().all(|permission| has.contains(permission))
}

#[cfg(test)]
mod tests {
    use policy::WorkspaceId;

    use super::*;

    #[test]
    fn no_role_includes_one_that_may_do_more_or_elsewhere() {
        let (acme, other) = (WorkspaceId::from_bytes([1; 16]), WorkspaceId::from_bytes([2; 16]));
        let roles: Vec<_> = RoleName::NAMES
            .iter()
            .flat_map(|(name, _)| [None, Some(acme), Some(other)].map(|workspace| Role::new(*name, workspace)))
            .flatten()
            .collect();
        for own in &roles {
            assert!(includes(*own, *own), "{own:?}");
            for requested in &roles {
                if includes(*own, *requested) {
                    for third in roles.iter().filter(|third| includes(*requested, **third)) {
                        assert!(includes(*own, *third), "{own:?} includes {requested:?}, and that {third:?}");
                    }
                }
            }
        }
        let role = |name, workspace| Role::new(name, workspace).unwrap();
        use RoleName::{EdgeOperator, Metrics, PlatformViewer, Responder, WorkspaceAdmin, WorkspaceMember};
        for (own, requested, expected) in [
            (role(WorkspaceAdmin, Some(acme)), role(WorkspaceMember, Some(acme)), true),
            (role(WorkspaceAdmin, Some(acme)), role(WorkspaceMember, Some(other)), false),
            (role(WorkspaceAdmin, Some(acme)), role(PlatformViewer, None), false),
            (role(WorkspaceMember, Some(acme)), role(WorkspaceAdmin, Some(acme)), false),
            (role(PlatformViewer, None), role(Metrics, None), true),
            (role(PlatformViewer, None), role(Responder, None), false),
            (role(EdgeOperator, None), role(Metrics, None), true),
            (role(Responder, None), role(WorkspaceMember, Some(other)), true),
            (role(Metrics, None), role(WorkspaceMember, Some(acme)), false),
        ] {
            assert_eq!(includes(own, requested), expected, "{own:?} includes {requested:?}");
        }
    }
}
