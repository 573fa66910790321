//! What admins do, apart from HTTP: a typed request and who acts, in; a value or an error as data, out.
//!
//! REST and the console each word the results and the errors. One file has one operation, or those of one resource: the
//! type of its request, which is parsed, limited and documented by the same declaration, and what it does.

pub(crate) mod admin_tokens;
pub(crate) mod audit;
pub(crate) mod audit_filter;
mod canonical;
pub(crate) mod choice;
pub(crate) mod cursor;
pub(crate) mod edge_tokens;
pub(crate) mod expiration;
pub(crate) mod field_types;
pub mod fields;
pub(crate) mod identify;
pub(crate) mod keys;
pub(crate) mod permissions;
pub(crate) mod principal;
pub(crate) mod request;
pub(crate) mod values;
pub(crate) mod workspaces;

use serde_json::Value;

use self::fields::{FieldError, Fields};
use self::principal::{InWorkspace, Principal};
use self::request::{RequestContext, WorkspaceOfRequest};
use self::values::workspace_name;
use crate::base::clock::Clock;
use crate::base::config::Config;
use crate::base::entropy::{Entropy, EntropyError};
use crate::base::secret::Secret;
use crate::base::tokens::Token;
use crate::store::{AtRevision, MAX_METADATA_BYTES, Store, StoreError};

/// What operations work on. Borrowed for one call.
#[derive(Clone, Copy)]
pub(crate) struct Operations<'a> {
    pub(crate) store: &'a Store,
    pub(crate) clock: &'a Clock,
    pub(crate) entropy: &'a Entropy,
    pub(crate) config: &'a Config,
    /// The tokens of the two token files.
    pub(crate) admin_token: &'a Token,
    pub(crate) edge_token: &'a Token,
}

/// A changed value with its new secret, which is shown once.
pub(crate) struct WithSecret<T> {
    pub(crate) changed: AtRevision<T>,
    pub(crate) secret: Secret,
}

/// What a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Workspace,
    Key,
    Token,
    /// A text that somebody found.
    Secret,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    #[error("fields of the request are invalid")]
    Invalid(Vec<FieldError>),
    /// It does not exist, or the principal may not see it.
    #[error("the {0:?} of the request was not found")]
    NotFound(Resource),
    /// A new token would have a role that its creator's role does not include.
    #[error("the principal's role does not include the new token's role")]
    RoleNotIncluded,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// A request without errors lacks a value: a fault in how it is parsed.
    #[error("a valid request lacks a value")]
    Incomplete,
}

impl OperationError {
    /// What is wrong with fields of the request, if that is the cause; otherwise the error itself.
    pub(crate) fn into_fields(self) -> Result<Vec<FieldError>, Self> {
        match self {
            Self::Invalid(errors) => Ok(errors),
            Self::Store(StoreError::SlugTaken) => {
                let message = "is taken by another workspace; choose a different one";
                Ok(vec![FieldError::new("slug", "slug-taken", message)])
            }
            Self::Store(StoreError::MetadataTooLarge { bytes }) => {
                let message = format!("would have {bytes} bytes of JSON; at most {MAX_METADATA_BYTES} are allowed");
                Ok(vec![FieldError::new("metadata", "too-long", message)])
            }
            other => Err(other),
        }
    }

    /// The error of a look-up of this resource.
    pub(crate) fn about(resource: Resource) -> impl Fn(StoreError) -> Self {
        move |error| match error {
            StoreError::NotFound => Self::NotFound(resource),
            other => Self::Store(other),
        }
    }
}

impl<'a> Operations<'a> {
    /// What a request about no workspace is checked against.
    pub(crate) fn context(&self, principal: &'a Principal) -> RequestContext<'a> {
        let workspace = WorkspaceOfRequest::Body(None);
        RequestContext { config: self.config, now: self.clock.now(), principal, workspace }
    }

    /// What a request in the workspace of its path is checked against.
    pub(crate) fn context_in(&self, at: &'a InWorkspace) -> RequestContext<'a> {
        RequestContext { workspace: WorkspaceOfRequest::Path(&at.workspace), ..self.context(&at.principal) }
    }

    /// What a request that may name a workspace is checked against. Looks the workspace up.
    pub(crate) async fn context_for(
        &self,
        principal: &'a Principal,
        fields: &Fields,
    ) -> Result<RequestContext<'a>, OperationError> {
        let found = match fields.peek("workspace").and_then(Value::as_str) {
            Some(name) => match self.store.workspace(workspace_name(name)).await {
                Ok(workspace) => Some(workspace.id),
                Err(StoreError::NotFound) => None,
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        let within_reach = found.filter(|id| principal.reach().is_none_or(|own| own == *id));
        Ok(RequestContext { workspace: WorkspaceOfRequest::Body(within_reach), ..self.context(principal) })
    }
}
