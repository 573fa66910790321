//! Stores the removal of instances by an operator, with its audit event.

use policy::WorkspaceId;
use serde_json::{Map, Value, json};

use super::replicated::save_ended;
use super::{Instance, save};
use crate::base::staleness_bound::StalenessBound;
use crate::store::history::audit::{Audited, Event, EventTarget};
use crate::store::history::changes::Change;
use crate::store::{AtRevision, ChangeContext, Deployment, Store, StoreError};

/// Which instances an operator removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstanceRemoval {
    /// One instance, by its id.
    One,
    /// All dead instances of an edge.
    OfEdge,
}

/// The removed instances of an edge, for the audit log.
struct RemovedInstances<'a> {
    edge: &'a str,
    instances: Vec<&'a str>,
}

impl Store {
    /// Records in at most one change that an operator has removed these instances. Each comes with the number of its
    /// row's last known change; an instance whose row another replica has changed since is left out. Returns the ids of
    /// the ended instances and the revision; `None` if none was ended.
    pub(crate) async fn end_instances(
        &self,
        instances: Vec<(Instance, i64)>,
        removal: InstanceRemoval,
        context: ChangeContext,
    ) -> Result<Option<AtRevision<Vec<String>>>, StoreError> {
        let me = match self.deployment() {
            Deployment::Single => None,
            Deployment::Replicated(replication) => Some(replication.id().to_owned()),
        };
        let work = move |change: &Change<'_>| {
            let sql = change.sql();
            let mut ended = Vec::with_capacity(instances.len());
            for (instance, known) in &instances {
                let is_saved = match &me {
                    None => save(sql, instance).map(|()| true)?,
                    Some(me) => save_ended(sql, instance, *known, me)?,
                };
                if is_saved {
                    ended.push(instance);
                }
            }
            let event = match (removal, ended.as_slice()) {
                (_, []) => return Ok(None),
                (InstanceRemoval::One, [one, ..]) => Event::ended("instance.remove", *one),
                (InstanceRemoval::OfEdge, [one, ..]) => {
                    let instances = ended.iter().map(|instance| instance.id.as_str()).collect();
                    Event::ended("instances.remove", &RemovedInstances { edge: &one.edge, instances })
                }
            };
            let revision = change.record(&event, &[])?;
            Ok(Some(AtRevision { value: ended.into_iter().map(|instance| instance.id.clone()).collect(), revision }))
        };
        self.change(context, work).await
    }
}

impl Audited for Instance {
    fn target(&self) -> EventTarget {
        EventTarget { kind: "instance", id: self.id.clone(), name: self.edge.clone() }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        None
    }

    fn fields(&self) -> Map<String, Value> {
        let max_staleness_secs = match self.bound {
            StalenessBound::Secs(secs) => json!(secs),
            StalenessBound::Never => Value::Null,
        };
        let fields = [("edge", json!(self.edge)), ("max_staleness_secs", max_staleness_secs)];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Audited for RemovedInstances<'_> {
    fn target(&self) -> EventTarget {
        EventTarget { kind: "edge", id: self.edge.to_owned(), name: self.edge.to_owned() }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        None
    }

    fn fields(&self) -> Map<String, Value> {
        let fields = [("edge", json!(self.edge)), ("instances", json!(self.instances))];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
