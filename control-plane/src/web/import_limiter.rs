//! Limits concurrent imports: space for incoming bodies, and permits for complete ones.
//!
//! An import acquires its permit when the last byte of its body has arrived, so a client that sends slowly, or stops,
//! keeps nobody else from importing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::WorkspaceId;

use crate::base::config::Limits;
use crate::web::problem::Problem;
use crate::web::spool::Spool;

/// Limits the imports of a control plane. Clones share the counts.
#[derive(Clone)]
pub struct ImportLimiter {
    limits: Limits,
    spool: Spool,
    running: Arc<Mutex<RunningImports>>,
}

#[derive(Default)]
struct RunningImports {
    all: u64,
    of_workspace: HashMap<WorkspaceId, u64>,
}

/// The permit of a running import. Dropping it frees the permit.
pub(crate) struct ImportPermit {
    running: Arc<Mutex<RunningImports>>,
    workspace: Option<WorkspaceId>,
}

impl ImportLimiter {
    pub fn new(limits: Limits, spool: Spool) -> Self {
        Self { limits, spool, running: Arc::default() }
    }

    /// Where bodies are stored until they are imported.
    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// How many imports are running.
    pub fn running(&self) -> u64 {
        lock(&self.running).all
    }

    /// A permit for an import whose body is complete; 429 if a limit is reached. `workspace`: the only workspace that
    /// it goes into, if there is only one.
    pub(crate) fn acquire(&self, workspace: Option<WorkspaceId>) -> Result<ImportPermit, Problem> {
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
        Ok(ImportPermit { running: Arc::clone(&self.running), workspace })
    }
}

impl Drop for ImportPermit {
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

fn lock(running: &Mutex<RunningImports>) -> MutexGuard<'_, RunningImports> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_limited_in_all_and_by_workspace_and_freed_when_an_import_ends() {
        let limits: Limits = toml::from_str("imports_per_workspace = 2\nimports_at_once = 4").unwrap();
        let imports = ImportLimiter::new(limits, Spool::new(std::env::temp_dir(), 0));
        let [one, other, third] = [1, 2, 3].map(|id| Some(WorkspaceId::from_bytes([id; 16])));
        let refused = |into| {
            let problem = imports.acquire(into).err().unwrap();
            assert_eq!((problem.status().as_u16(), problem.code()), (429, "limit-reached"));
            problem.detail().to_owned()
        };
        let mut permits: Vec<_> = [one, one, None].map(|into| imports.acquire(into).ok()).into();
        assert!(permits.iter().all(Option::is_some));
        assert!(refused(one).contains("`imports_per_workspace`"));
        permits.push(imports.acquire(other).ok());
        for into in [other, third, None] {
            assert!(refused(into).contains("`imports_at_once`"), "{into:?}");
        }
        assert!(refused(one).contains("`imports_per_workspace`"), "the limit that the workspace can act on");
        drop(permits.remove(0));
        permits.push(imports.acquire(one).ok());
        assert!(permits.iter().all(Option::is_some));
        drop(permits);
        let of_workspace = lock(&imports.running).of_workspace.len();
        assert_eq!((imports.running(), of_workspace), (0, 0), "all permits are free again");
    }

    #[test]
    fn without_limits_there_is_always_a_permit() {
        let limits = toml::from_str("imports_per_workspace = 0\nimports_at_once = 0").unwrap();
        let imports = ImportLimiter::new(limits, Spool::new(std::env::temp_dir(), 0));
        let into = Some(WorkspaceId::from_bytes([1; 16]));
        assert!((0..100).map(|_| imports.acquire(into)).collect::<Result<Vec<_>, _>>().is_ok());
    }
}
