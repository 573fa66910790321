//! The catalogue of ids: the numbers that stand for scopes and environments on the wire.

use std::collections::BTreeMap;

use policy::wire::Op;
use policy::{Environment, Level, Scope, Scopes};
use serde_json::Value;

use super::audit::{self, Event};
use super::changes::{Change, Write};
use crate::base::config::Config;
use crate::store::db::sql::{FromColumn, NONE, Sql, params};
use crate::store::{ChangeContext, StoreError};

/// The numbers of scopes and environments, by name. Read at the start: none is added while the control plane runs.
pub(crate) struct IdCatalogue {
    scopes: BTreeMap<Scope, u16>,
    environments: BTreeMap<Environment, u8>,
}

const NEXT_SCOPE: &str =
    "INSERT INTO scopes (number, name) SELECT coalesce(max(number), 0) + 1, ?1 FROM scopes RETURNING number";

const NEXT_ENVIRONMENT: &str = "INSERT INTO environments (number, name) SELECT coalesce(max(number), 0) + 1, ?1 FROM environments RETURNING number";

/// Assigns numbers to what is new in the configuration, as one change. What the configuration no longer names keeps its
/// number: keys may still use it.
pub(crate) fn define(write: &Write<'_>, config: &Config, context: &ChangeContext) -> Result<IdCatalogue, StoreError> {
    let known = IdCatalogue::read(write.sql())?;
    let change = Change::new(write, &known, context);
    let mut ops = Vec::new();
    for scope in config.scopes.iter().filter(|scope| !known.scopes.contains_key(*scope)) {
        let number = insert(change.sql(), NEXT_SCOPE, scope.as_str())?;
        ops.push(Op::DefineScope { number, scope: scope.clone() });
    }
    for name in config.environments.iter().filter(|name| !known.environments.contains_key(*name)) {
        let number = insert(change.sql(), NEXT_ENVIRONMENT, name.as_str())?;
        ops.push(Op::DefineEnvironment { number, environment: name.clone() });
    }
    // A database from before the audit log gets its first event here.
    if ops.is_empty() && audit::head(change.sql())?.is_some() {
        return Ok(known);
    }
    let names = |names: Vec<&str>| Value::from(names);
    let catalogue = [
        ("scopes", names(config.scopes.iter().map(Scope::as_str).collect())),
        ("environments", names(config.environments.iter().map(Environment::as_str).collect())),
    ];
    let catalogue = catalogue.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    change.record(&Event::of_all("catalogue.define", catalogue), &ops)?;
    IdCatalogue::read(change.sql())
}

fn insert<N: FromColumn>(sql: Sql<'_>, statement: &str, name: &str) -> Result<N, StoreError> {
    Ok(sql.query_row(statement, params![name], |row| row.get(0))?)
}

impl IdCatalogue {
    pub(crate) fn read(sql: Sql<'_>) -> Result<Self, StoreError> {
        let scopes = read_table(sql, "SELECT name, number FROM scopes")?;
        let environments = read_table(sql, "SELECT name, number FROM environments")?;
        Ok(Self { scopes, environments })
    }

    pub(crate) fn environment(&self, name: &str) -> Result<u8, StoreError> {
        let number = name.parse().ok().and_then(|name: Environment| self.environments.get(&name).copied());
        number.ok_or_else(|| StoreError::Fault(format!("the environment `{name}` has no number")))
    }

    pub(crate) fn contains_scope(&self, scope: &Scope) -> bool {
        self.scopes.contains_key(scope)
    }

    pub(crate) fn grants(&self, scopes: &Scopes) -> Result<Vec<(u16, Level)>, StoreError> {
        let grant = |(scope, level): (&Scope, &Level)| match self.scopes.get(scope) {
            Some(number) => Ok((*number, *level)),
            None => Err(StoreError::Fault(format!("the scope `{scope}` has no number"))),
        };
        scopes.iter().map(grant).collect()
    }

    /// For a snapshot's manifest.
    pub(crate) fn scopes(&self) -> Vec<(u16, Scope)> {
        self.scopes.iter().map(|(scope, number)| (*number, scope.clone())).collect()
    }

    /// For a snapshot's manifest.
    pub(crate) fn environments(&self) -> Vec<(u8, Environment)> {
        self.environments.iter().map(|(name, number)| (*number, name.clone())).collect()
    }
}

fn read_table<T: std::str::FromStr + Ord, N: FromColumn>(
    sql: Sql<'_>,
    statement: &str,
) -> Result<BTreeMap<T, N>, StoreError> {
    let mut query = sql.prepare(statement)?;
    let rows = query.query_map(NONE, |row| Ok((row.get::<String>(0)?, row.get(1)?)))?;
    let mut numbers = BTreeMap::new();
    for (name, number) in rows {
        let name = name.parse().map_err(|_| {
            StoreError::Fault(format!("the database has the invalid scope or environment name `{name}`"))
        })?;
        numbers.insert(name, number);
    }
    Ok(numbers)
}
