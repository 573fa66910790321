//! Who acts: a principal, anywhere or in a workspace.

use std::net::IpAddr;

use policy::{Allowlist, UnixSeconds, WorkspaceId};

use super::permissions::{Permission, permissions};
use crate::base::clock::Clock;
use crate::store::{
    Actor, ActorKind, AdminToken, ChangeContext, MayMake, OnceKey, Role, TOKEN_FILE_ID, TOKEN_FILE_NAME, Workspace,
};

/// Who acts, with which role, and from where. Only authentication creates one, from a token or a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    actor: Actor,
    role: Role,
    allowlist: Allowlist,
    may_make: MayMake,
    expires_at: Option<UnixSeconds>,
    address: Option<IpAddr>,
    request_id: Option<String>,
    once: Option<OnceKey>,
}

/// A principal in a workspace where it may act.
pub(crate) struct InWorkspace {
    pub(crate) principal: Principal,
    pub(crate) workspace: Workspace,
}

impl InWorkspace {
    /// The same, for a change that is made only once.
    pub(crate) fn once(mut self, once: impl Into<Option<OnceKey>>) -> Self {
        self.principal = self.principal.once(once);
        self
    }
}

impl Principal {
    /// What it may do.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Whether it has a permission: in its own workspace, or everywhere.
    pub(crate) fn may(&self, permission: Permission) -> bool {
        permissions(self.role.name()).contains(&permission)
    }

    /// The addresses that its token may be used from.
    pub(crate) fn allowlist(&self) -> &Allowlist {
        &self.allowlist
    }

    /// The roles that it may give to tokens.
    pub(crate) fn may_make(&self) -> &MayMake {
        &self.may_make
    }

    /// When its token ends; `None`: never.
    pub(crate) fn expires_at(&self) -> Option<UnixSeconds> {
        self.expires_at
    }

    /// This principal as the actor of a change that is made now.
    pub(crate) fn change_context(&self, clock: &Clock) -> ChangeContext {
        let Self { actor, address, request_id, once, .. } = self.clone();
        ChangeContext { actor, at: clock.now(), address, request_id, once }
    }

    /// This principal, for a change that is made only once.
    pub(crate) fn once(mut self, once: impl Into<Option<OnceKey>>) -> Self {
        self.once = once.into();
        self
    }

    /// The actor as the audit log names it.
    pub(crate) fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The client's address; `None` for a Unix socket.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// This principal, with the client's address and the id of its request.
    pub(crate) fn with_request(mut self, address: Option<IpAddr>, request_id: Option<String>) -> Self {
        (self.address, self.request_id) = (address, request_id);
        self
    }

    /// The workspace that this principal is limited to; `None` for all workspaces.
    pub(crate) fn reach(&self) -> Option<WorkspaceId> {
        self.role().workspace()
    }

    /// The holder of the token in the file of --admin-token-file.
    pub(crate) fn token_file() -> Self {
        let (id, name) = (TOKEN_FILE_ID.to_owned(), TOKEN_FILE_NAME.to_owned());
        let actor = Actor { kind: ActorKind::TokenFile, id, name };
        Self {
            actor,
            role: Role::PLATFORM_ADMIN,
            allowlist: Allowlist::Any,
            may_make: MayMake::Any,
            expires_at: None,
            address: None,
            request_id: None,
            once: None,
        }
    }
}

impl From<AdminToken> for Principal {
    fn from(token: AdminToken) -> Self {
        let actor = Actor { kind: ActorKind::AdminToken, id: token.id.to_string(), name: token.name };
        Self {
            actor,
            role: token.role,
            allowlist: token.allowlist,
            may_make: token.may_make,
            expires_at: token.expires_at,
            address: None,
            request_id: None,
            once: None,
        }
    }
}
