//! The flags that name the database.

use std::path::PathBuf;

use clap::Args;

use crate::store::Database;

/// The database, where it may be either.
#[derive(Args, Clone, Debug)]
pub struct DatabaseOptions {
    /// The SQLite database: created if it doesn't exist, and open in one process at a time. Or one in PostgreSQL:
    /// postgres://user@host:5432/latchkey (docs/postgres.md).
    #[arg(
        long,
        env = "LATCHKEY_DATABASE",
        value_name = "FILE|URL",
        default_value = "latchkey.db",
        hide_env_values = true
    )]
    database: Database,

    #[command(flatten)]
    password: PasswordOption,
}

impl DatabaseOptions {
    pub fn database(&self) -> Database {
        self.password.complete(&self.database)
    }
}

/// The password of a database in PostgreSQL.
#[derive(Args, Clone, Debug)]
pub struct PasswordOption {
    /// File with the PostgreSQL password, if neither the URL nor PGPASSWORD contains it. Refused if others can read the
    /// file.
    #[arg(long, env = "LATCHKEY_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    database_password_file: Option<PathBuf>,
}

impl PasswordOption {
    /// The database, with the password file if one was given.
    pub fn complete(&self, database: &Database) -> Database {
        database.clone().with_password_file(self.database_password_file.clone())
    }
}
