//! Databases for tests: a file in the test's directory or, with LATCHKEY_TEST_DATABASE=postgres, a PostgreSQL schema.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::OnceLock;

pub use crate::server::{Server, is_postgres, on_server, start};

/// The database's file in a test's directory.
pub const FILE: &str = "latchkey.db";

static SERVER: OnceLock<Server> = OnceLock::new();

/// The value of `--database` for a test with this directory: the same each time, and empty at first. A file that is
/// already there is used whatever the engine.
pub fn of(directory: &Path) -> String {
    let file = directory.join(FILE);
    if !is_postgres() || file.exists() {
        return file.to_str().unwrap().to_owned();
    }
    let server = SERVER.get_or_init(|| start(&[]));
    let mut hasher = DefaultHasher::new();
    directory.canonicalize().unwrap().hash(&mut hasher);
    let schema = format!("test_{:016x}", hasher.finish());
    let url = server.url();
    on_server(&url, |server| server.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}")).unwrap());
    format!("{url}&application_name={schema}&options=-csearch_path%3D{schema}")
}
