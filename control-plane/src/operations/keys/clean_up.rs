//! Bulk clean-up of unused keys, with a dry run.

use utoipa::openapi::schema::ObjectBuilder;

use super::filter;
use crate::operations::fields::{Fields, InvalidValue};
use crate::operations::principal::InWorkspace;
use crate::operations::request::{BodyField, NamedSchemas, RequestContext, request_body};
use crate::operations::{OperationError, Operations, Resource};
use crate::store::{AtRevision, CleanUpAction, KeyFilter, KeyMatches};

request_body! {
    /// Which keys to change: those that meet all given conditions, at least one. Each is as in the list of keys.
    pub(crate) struct MatchingKeys {
        /// Whether to list those keys only, and change nothing.
        pub(crate) dry_run: bool,
        pub(crate) filter: KeyFilter,
    }
}

/// The fields of a filter, at least one.
impl BodyField for KeyFilter {
    fn take(fields: &mut Fields, _: &str, context: &RequestContext<'_>) -> Option<Self> {
        let filter = filter::read(fields, context.now);
        if filter == Self::default() && !fields.has_errors() {
            let message = "send at least one of unused_days, unrotated_days, expiring_days, name and status: otherwise \
                           all keys would match";
            fields.refuse("", InvalidValue::new("required", message));
        }
        Some(filter)
    }

    fn describe(_: &str, _: Option<&str>, body: ObjectBuilder) -> ObjectBuilder {
        filter::describe(body)
    }

    fn schemas(schemas: &mut NamedSchemas) {
        filter::schemas(schemas);
    }
}

impl Operations<'_> {
    /// Deactivates or deletes all keys that match, or finds them in a dry run.
    pub(crate) async fn clean_up(
        &self,
        at: &InWorkspace,
        action: CleanUpAction,
        request: MatchingKeys,
    ) -> Result<AtRevision<KeyMatches>, OperationError> {
        let MatchingKeys { dry_run, filter } = request;
        let (workspace, context) = (at.workspace.id, at.principal.change_context(self.clock));
        let found = if dry_run {
            self.store.matching_keys(workspace, filter, action, context.at).await
        } else {
            self.store.clean_up(workspace, filter, action, context).await
        };
        found.map_err(OperationError::about(Resource::Key))
    }
}
