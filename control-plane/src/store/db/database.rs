//! Where the state is stored: a file, or a PostgreSQL server.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::postgres::display_url;
use crate::base::secret::Secret;

/// The database that `--database` names. Displayed without the password.
#[derive(Clone)]
pub enum Database {
    /// An SQLite file.
    File(PathBuf),
    /// PostgreSQL. A password in the URL takes precedence over one in `password_file`.
    Server { url: Arc<Secret>, password_file: Option<PathBuf> },
}

impl Database {
    /// The same, with the password in the file at `path`. An SQLite file has none.
    #[must_use]
    pub fn with_password_file(self, path: Option<PathBuf>) -> Self {
        match self {
            Self::File(_) => self,
            Self::Server { url, password_file } => Self::Server { url, password_file: path.or(password_file) },
        }
    }
}

impl FromStr for Database {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Self::Server { url: Arc::new(Secret::new(text.to_owned())), password_file: None }
        } else {
            Self::File(PathBuf::from(text))
        })
    }
}

impl fmt::Display for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Server { url, .. } => display_url(url.expose()).fmt(formatter),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<PathBuf> for Database {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&PathBuf> for Database {
    fn from(path: &PathBuf) -> Self {
        Self::File(path.clone())
    }
}

impl From<&Path> for Database {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<&Self> for Database {
    fn from(database: &Self) -> Self {
        database.clone()
    }
}
