//! `latchkey workspaces`: the tenants.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Call;
use super::connection::{RemoteOptions, Session};
use super::failure::Outcome;
use super::output::{field_card, field_table};
use super::pagination;

/// The options of `latchkey workspaces`.
#[derive(Args)]
pub(super) struct WorkspacesOptions {
    #[command(flatten)]
    remote: RemoteOptions,

    #[command(subcommand)]
    command: WorkspacesCommand,
}

#[derive(Subcommand)]
enum WorkspacesCommand {
    /// Lists the workspaces that you may see, oldest first.
    List,

    /// Creates a workspace.
    Create {
        /// Its name, for people.
        name: String,

        /// Its name in URLs and route templates: a lower-case letter, then lower-case letters, digits or `-`. Never
        /// changes.
        #[arg(long)]
        slug: String,
    },

    /// Shows a workspace.
    Show {
        /// Its id or slug.
        workspace: String,
    },

    /// Renames a workspace.
    Edit {
        /// Its id or slug.
        workspace: String,

        /// The new name.
        #[arg(long)]
        name: String,
    },
}

pub(super) fn run_workspaces(options: &WorkspacesOptions) -> anyhow::Result<Outcome> {
    let session = options.remote.session()?;
    match &options.command {
        WorkspacesCommand::List => list(&session)?,
        WorkspacesCommand::Create { name, slug } => {
            let body = json!({"name": name, "slug": slug});
            print_workspace(&session, &session.client.send(Call::post_idempotent(&["v1", "workspaces"], body)?)?.body)?;
        }
        WorkspacesCommand::Show { workspace } => {
            print_workspace(&session, &session.client.send(Call::get(&["v1", "workspaces", workspace]))?.body)?;
        }
        WorkspacesCommand::Edit { workspace, name } => {
            let call = Call::patch(&["v1", "workspaces", workspace], json!({"name": name}));
            print_workspace(&session, &session.client.send(call)?.body)?;
        }
    }
    Ok(Outcome::Done)
}

fn list(session: &Session) -> anyhow::Result<()> {
    let items = pagination::fetch_all(&session.client, None, || Call::get(&["v1", "workspaces"]))?;
    let columns = [("slug", "slug"), ("name", "name"), ("id", "id"), ("created", "created_at")];
    session.print(&items.into(), |items| field_table(&columns, items))
}

fn print_workspace(session: &Session, workspace: &Value) -> anyhow::Result<()> {
    let names = ["id", "slug", "name", "created_at", "created_by", "updated_at", "revision"];
    session.print(workspace, |workspace| field_card(&names, workspace))
}
