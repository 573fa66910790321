//! Instances that an operator says are gone, on disk and in the audit log.

use policy::WorkspaceId;
use serde_json::{Map, Value, json};

use super::{Instance, mark, row_of, save};
use crate::edges::Bound;
use crate::store::audit::{Audited, Event, Target};
use crate::store::changes::Change;
use crate::store::sql::params;
use crate::store::{Acting, Changed, Store, StoreError};

/// What is written of instances that an operator says are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The one that was named.
    One,
    /// Those of an edge that are dead.
    OfEdge,
}

/// Dead instances of an edge, as the audit log has them.
struct Dead<'a> {
    edge: &'a str,
    instances: Vec<&'a str>,
}

impl Store {
    /// Notes an operator's word that these instances are gone: one change, at most. Each comes with the number of its row's last
    /// change; one that another replica has heard of since stays. Answers with the ids of those that were ended, and the
    /// revision, which there is when there are any.
    pub(crate) async fn end_instances(
        &self,
        instances: Vec<(Instance, i64)>,
        ending: Ending,
        acting: Acting,
    ) -> Result<Option<Changed<Vec<String>>>, StoreError> {
        let me = self.replica().map(str::to_owned);
        let work = move |change: &Change<'_>| {
            let sql = change.sql();
            let mut ended = Vec::with_capacity(instances.len());
            for (instance, known) in &instances {
                if me.is_some() && row_of(sql, &instance.id)?.is_none_or(|row| row.changed != *known) {
                    continue;
                }
                save(sql, instance)?;
                if let Some(me) = &me {
                    sql.prepare("UPDATE instances SET told = 1 WHERE id = ?1")?.execute(params![instance.id])?;
                    mark(sql, &instance.id, me)?;
                }
                ended.push(instance);
            }
            let event = match (ending, ended.as_slice()) {
                (_, []) => return Ok(None),
                (Ending::One, [one, ..]) => Event::ended("instance.remove", *one),
                (Ending::OfEdge, [one, ..]) => {
                    let instances = ended.iter().map(|instance| instance.id.as_str()).collect();
                    Event::ended("instances.remove", &Dead { edge: &one.edge, instances })
                }
            };
            let revision = change.record(&acting, &event, &[])?;
            Ok(Some(Changed { value: ended.into_iter().map(|instance| instance.id.clone()).collect(), revision }))
        };
        self.engine.change(work).await
    }
}

impl Audited for Instance {
    fn target(&self) -> Target {
        Target { kind: "instance", id: self.id.clone(), name: self.edge.clone() }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        None
    }

    fn fields(&self) -> Map<String, Value> {
        let max_staleness_secs = match self.bound {
            Bound::Secs(secs) => json!(secs),
            Bound::Never => Value::Null,
        };
        let fields = [("edge", json!(self.edge)), ("max_staleness_secs", max_staleness_secs)];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Audited for Dead<'_> {
    fn target(&self) -> Target {
        Target { kind: "edge", id: self.edge.to_owned(), name: self.edge.to_owned() }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        None
    }

    fn fields(&self) -> Map<String, Value> {
        let fields = [("edge", json!(self.edge)), ("instances", json!(self.instances))];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
