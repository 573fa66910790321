//! A run's schema in a real PostgreSQL.

use std::path::Path;

use latchkey::store::Database;

use test_support::server::{Server, on_server};

/// A schema of its own for a run.
pub(crate) struct Schema {
    server: String,
    name: String,
}

impl Schema {
    /// Creates an empty one. Its name comes from the directory's, which no other run has.
    pub(crate) fn make(server: &Server, directory: &Path) -> Self {
        let own = directory.file_name().expect("a name").to_string_lossy();
        let name: String = own.bytes().map(|byte| format!("{byte:02x}")).collect();
        let schema = Self { server: server.url(), name: format!("m{name}") };
        schema.execute(&format!("CREATE SCHEMA {}", schema.name));
        schema
    }

    /// The database for the control plane with this number.
    pub(crate) fn database(&self, replica: usize) -> Database {
        let Self { server, name } = self;
        let url = format!("{server}&application_name={name}_{replica}&options=-csearch_path%3D{name}");
        let Ok(database) = url.parse();
        database
    }

    /// Ends the connections of a control plane, even busy ones.
    pub(crate) fn cut(&self, replica: usize) {
        let name = format!("{}_{replica}", self.name);
        self.execute(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'"
        ));
    }

    pub(crate) fn remove(self) {
        self.execute(&format!("DROP SCHEMA {} CASCADE", self.name));
    }

    fn execute(&self, sql: &str) {
        on_server(&self.server, |server| server.batch_execute(sql).expect("the server carries it out"));
    }
}
