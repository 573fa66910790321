//! Limits imports at a time: space for incoming bodies, and places for complete ones.
//!
//! A place is taken when the last byte of a body has arrived, so a client that sends slowly, or stops, keeps nobody
//! else from importing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::WorkspaceId;

use crate::config::Limits;
use crate::problem::Problem;
use crate::spool::Spool;

/// What the imports of a control plane share. Clones share it.
#[derive(Clone)]
pub struct Imports {
    limits: Limits,
    spool: Spool,
    running: Arc<Mutex<Running>>,
}

#[derive(Default)]
struct Running {
    all: u64,
    of_workspace: HashMap<WorkspaceId, u64>,
}

/// The place of a running import. Dropping it frees the place.
pub(crate) struct ImportPlace {
    running: Arc<Mutex<Running>>,
    workspace: Option<WorkspaceId>,
}

impl Imports {
    pub fn new(limits: Limits, spool: Spool) -> Self {
        Self { limits, spool, running: Arc::default() }
    }

    /// Where bodies are kept until they are imported.
    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// How many imports run.
    pub fn running(&self) -> u64 {
        lock(&self.running).all
    }

    /// A place for an import whose body is complete; 429 if there is none. `workspace`: the one that all of it goes
    /// into, if there is one.
    pub(crate) fn take(&self, workspace: Option<WorkspaceId>) -> Result<ImportPlace, Problem> {
        let mut running = lock(&self.running);
        let of_workspace = workspace.and_then(|id| running.of_workspace.get(&id)).copied().unwrap_or_default();
        let own = self.limits.imports_of_workspace().filter(|limit| of_workspace >= limit.maximum);
        let reached = own.or_else(|| self.limits.imports().filter(|limit| running.all >= limit.maximum));
        if let Some(limit) = reached {
            return Err(Problem::too_many_imports(limit));
        }
        running.all = running.all.saturating_add(1);
        if let Some(workspace) = workspace {
            let number = running.of_workspace.entry(workspace).or_default();
            *number = number.saturating_add(1);
        }
        drop(running);
        Ok(ImportPlace { running: Arc::clone(&self.running), workspace })
    }
}

impl Drop for ImportPlace {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        running.all = running.all.saturating_sub(1);
        let Some(workspace) = self.workspace else { return };
        if let Some(number) = running.of_workspace.get_mut(&workspace) {
            *number = number.saturating_sub(1);
            if *number == 0 {
                running.of_workspace.remove(&workspace);
            }
        }
    }
}

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_in_all_and_by_workspace_and_freed_when_an_import_ends() {
        let limits: Limits = toml::from_str("imports_per_workspace = 2\nimports_at_once = 4").unwrap();
        let imports = Imports::new(limits, Spool::new(std::env::temp_dir(), 0));
        let [one, other, third] = [1, 2, 3].map(|id| Some(WorkspaceId::from_bytes([id; 16])));
        let refused = |into| {
            let problem = imports.take(into).err().unwrap();
            assert_eq!((problem.status().as_u16(), problem.code()), (429, "limit-reached"));
            problem.detail().to_owned()
        };
        let mut places: Vec<_> = [one, one, None].map(|into| imports.take(into).ok()).into();
        assert!(places.iter().all(Option::is_some));
        assert!(refused(one).contains("`imports_per_workspace`"));
        places.push(imports.take(other).ok());
        for into in [other, third, None] {
            assert!(refused(into).contains("`imports_at_once`"), "{into:?}");
        }
        assert!(refused(one).contains("`imports_per_workspace`"), "the limit that the workspace can act on");
        drop(places.remove(0));
        places.push(imports.take(one).ok());
        assert!(places.iter().all(Option::is_some));
        drop(places);
        let of_workspace = lock(&imports.running).of_workspace.len();
        assert_eq!((imports.running(), of_workspace), (0, 0), "all places are free again");
    }

    #[test]
    fn without_limits_there_is_always_a_place() {
        let limits = toml::from_str("imports_per_workspace = 0\nimports_at_once = 0").unwrap();
        let imports = Imports::new(limits, Spool::new(std::env::temp_dir(), 0));
        let into = Some(WorkspaceId::from_bytes([1; 16]));
        assert!((0..100).map(|_| imports.take(into)).collect::<Result<Vec<_>, _>>().is_ok());
    }
}
