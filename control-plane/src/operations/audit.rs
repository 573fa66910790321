//! The audit log: a page of it, or all that a filter selects.

use std::num::NonZeroU32;

use policy::{Revision, WorkspaceId};

use super::choice::{Choice as _, choice};
use super::cursor::{self, CursorPage};
use super::fields::Fields;
use super::{OperationError, Operations, audit_filter, values};
use crate::store::{AuditEvent, AuditFilter, AuditHead, AuditQuery, Order};

/// The number of events in each batch that an export reads.
const EXPORT_STEP: NonZeroU32 = match NonZeroU32::new(500) {
    Some(step) => step,
    None => NonZeroU32::MIN,
};

choice!(
    "The order of a list of events; `-` is descending.",
    Order as "AuditSort",
    "unknown-sort",
    Self::Oldest => "at",
    Self::Newest => "-at",
);

impl Operations<'_> {
    /// A page of the events of one workspace or of all, as the fields of a query select them, newest first by default.
    /// Also returns the newest event of the whole log.
    pub(crate) async fn list_audit_events(
        &self,
        workspace: Option<WorkspaceId>,
        mut fields: Fields,
    ) -> Result<(CursorPage<AuditEvent>, Option<AuditHead>), OperationError> {
        let head = self.store.audit_head().await?;
        let (filter, sort) = selection(&mut fields, head);
        let limit = fields.optional("limit", values::limit).unwrap_or(values::DEFAULT_LIMIT);
        let position = fields.optional("cursor", |value| cursor::decode(&values::string(value)?));
        let query = AuditQuery { workspace, filter, order: sort.unwrap_or(Order::Newest), limit };
        let query = self.store.within_time(fields.finish(|| Some(after(query, position)))?).await?;
        let page = self.store.list_audit_events(query).await?;
        Ok((CursorPage::new(page, |event| event.revision), head))
    }

    /// The query for all events that the fields select, oldest first by default, in batches. Also returns the newest
    /// event of the whole log; later ones are left out.
    pub(crate) async fn export_audit_events(
        &self,
        workspace: Option<WorkspaceId>,
        mut fields: Fields,
    ) -> Result<(AuditQuery, Option<AuditHead>), OperationError> {
        let head = self.store.audit_head().await?;
        let (filter, sort) = selection(&mut fields, head);
        let query = AuditQuery { workspace, filter, order: sort.unwrap_or(Order::Oldest), limit: EXPORT_STEP };
        Ok((self.store.within_time(fields.finish(|| Some(query))?).await?, head))
    }
}

/// The filter and the order, up to the newest event.
fn selection(fields: &mut Fields, head: Option<AuditHead>) -> (AuditFilter, Option<Order>) {
    let filter = audit_filter::parse(fields);
    let head = head.map_or(Revision(0), |head| head.revision);
    let until = Some(filter.until.map_or(head, |until| until.min(head)));
    (AuditFilter { until, ..filter }, fields.optional("sort", Order::from_value))
}

/// The part of the list after the position of a cursor.
pub(crate) fn after(mut query: AuditQuery, position: Option<Revision>) -> AuditQuery {
    match (position, query.order) {
        (None, _) => {}
        (Some(position), Order::Oldest) => query.filter.since = query.filter.since.max(Some(position)),
        (Some(position), Order::Newest) => {
            query.filter.until = query.filter.until.min(Some(Revision(position.0.saturating_sub(1))))
        }
    }
    query
}
