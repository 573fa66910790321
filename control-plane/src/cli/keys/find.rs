//! `latchkey keys list` and `show`.

use clap::Args;
use serde_json::Value;

use super::WorkspaceSession;
use crate::cli::client::Call;
use crate::cli::failure::Outcome;
use crate::cli::json::{given, object};
use crate::cli::output::field_table;
use crate::cli::pagination;

/// Keys that nobody needs any more; all that is given must hold.
#[derive(Args)]
pub(super) struct Filter {
    /// Created, or last used, at least this many days ago.
    #[arg(long, value_name = "DAYS")]
    pub(super) unused_days: Option<u32>,

    /// Created, or last rotated, at least this many days ago.
    #[arg(long, value_name = "DAYS")]
    pub(super) unrotated_days: Option<u32>,

    /// Expires within this many days, and hasn't yet.
    #[arg(long, value_name = "DAYS")]
    pub(super) expiring_days: Option<u32>,

    /// With this name; `*` stands for any text, `?` for any character.
    #[arg(long, value_name = "PATTERN")]
    pub(super) name: Option<String>,

    /// With this status.
    #[arg(long, value_parser = ["active", "inactive", "expired"])]
    pub(super) status: Option<String>,
}

impl Filter {
    pub(super) fn is_empty(&self) -> bool {
        let Self { unused_days, unrotated_days, expiring_days, name, status } = self;
        [unused_days, unrotated_days, expiring_days].iter().all(|days| days.is_none())
            && name.is_none()
            && status.is_none()
    }

    /// The body of a request that changes, or only lists, all keys that match.
    pub(super) fn body(&self, dry_run: bool) -> Value {
        object([
            ("dry_run", Some(dry_run.into())),
            ("unused_days", given(&self.unused_days)),
            ("unrotated_days", given(&self.unrotated_days)),
            ("expiring_days", given(&self.expiring_days)),
            ("name", given(&self.name)),
            ("status", given(&self.status)),
        ])
    }
}

/// The options of `latchkey keys list`.
#[derive(Args)]
pub(super) struct ListOptions {
    #[command(flatten)]
    filter: Filter,

    /// Part of the name, the whole id, or the last 4 characters of the secret.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,

    /// The sort order; `-` is descending.
    #[arg(long, value_parser = ["created_at", "-created_at", "name", "-name"], default_value = "-created_at", allow_hyphen_values = true)]
    sort: String,

    /// The most keys to list; all by default.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

pub(super) fn list(at: &WorkspaceSession<'_>, options: &ListOptions) -> anyhow::Result<Outcome> {
    let ListOptions { filter, search, sort, limit } = options;
    let page = || {
        let call = Call::get(&at.path(&[])).query("q", search.as_ref()).query("sort", Some(sort));
        let call = call.query("unused_days", filter.unused_days).query("unrotated_days", filter.unrotated_days);
        let call = call.query("expiring_days", filter.expiring_days).query("name", filter.name.as_ref());
        call.query("status", filter.status.as_ref())
    };
    let keys = pagination::fetch_all(&at.session.client, *limit, page)?;
    let columns = [
        ("id", "id"),
        ("name", "name"),
        ("status", "status"),
        ("environment", "environment"),
        ("ends in", "last_characters"),
        ("scopes", "scopes"),
        ("expires", "expires_at"),
        ("last used", "last_used_at"),
    ];
    at.session.print(&keys.into(), |keys| field_table(&columns, keys))?;
    Ok(Outcome::Done)
}

pub(super) fn show(at: &WorkspaceSession<'_>, key: &str) -> anyhow::Result<Outcome> {
    at.print_key(&at.session.client.send(Call::get(&at.path(&[key])))?.body)?;
    Ok(Outcome::Done)
}
