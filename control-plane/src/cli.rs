//! The command line: flag, then environment, then default. `--help` is the reference.

mod audit;
mod check_config;
mod client;
mod connection;
mod copy;
mod database;
mod edge_tokens;
mod edges;
mod envoy_config;
mod explain;
mod failure;
mod json;
mod keys;
mod log;
mod login;
mod new_secret;
mod output;
mod pagination;
mod problem;
mod progress;
mod redact;
mod rule_strictness;
mod secret_input;
mod token_collection;
mod tokens;
mod waiting;
mod workspaces;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use self::audit::{AuditCommand, run_audit};
use self::check_config::{CheckConfigOptions, run_check_config};
use self::connection::RemoteOptions;
use self::copy::{CopyOptions, run_copy};
use self::database::{BackupOptions, RestoreOptions, run_backup, run_restore};
use self::edge_tokens::{EdgeTokensOptions, run_edge_tokens};
use self::edges::{EdgesOptions, EnforcementOptions, run_edges, run_enforcement};
use self::envoy_config::{EnvoyConfigOptions, run_envoy_config};
use self::explain::{ExplainOptions, run_explain};
use self::failure::{Outcome, exit_code, is_broken_pipe};
use self::keys::{KeysOptions, run_keys};
use self::log::Log;
use self::login::{run_login, run_logout};
use self::output::print;
use self::redact::{holds_secret, without_secrets};
use self::tokens::{TokensOptions, run_tokens};
use self::workspaces::{WorkspacesOptions, run_workspaces};
use crate::api::openapi;
use crate::serve::{ServeOptions, serve};

/// What every `--help` ends with.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused, or failed
  2  the command line is wrong, or incomplete
  3  done, but not enforced on every worker of every edge (--wait, enforcement)
  4  no answer from the control plane, or it is temporarily unavailable: try again
  5  the request would be denied (explain)";

/// API keys for Envoy, enforced at the edge.
///
/// `serve`, `backup`, `restore`, `copy` and `audit verify` work on the database itself. All others send REST requests
/// to a control plane, with the token that `login` stored.
#[derive(Parser)]
#[command(name = "latchkey", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the control plane: REST under /v1 and the console at /console for admins, /edge/v1 for edges.
    ///
    /// Writes the address to standard output once it serves, and logs to standard error; LATCHKEY_LOG sets how much
    /// (error, warn, info, debug; info by default), and LATCHKEY_LOG_FORMAT=json makes each line an object. SIGTERM and
    /// SIGINT shut it down: it answers the requests that it has accepted first.
    #[command(after_long_help = "A first start needs nothing but two paths for the token files:\n  \
        latchkey serve --admin-token-file admin.token --edge-token-file edge.token")]
    Serve(ServeOptions),

    /// Prints the OpenAPI document of the REST API, as GET /openapi.json returns it.
    Openapi,

    /// Backs the database up into a new file, even while a control plane serves it.
    ///
    /// The backup is a consistent snapshot: checked, flushed to disk, and readable only by its owner. `latchkey
    /// restore` restores it.
    Backup(BackupOptions),

    /// Replaces the database with a backup. Stop the control plane first.
    ///
    /// Secrets that were revoked after the backup would be valid again, so a backup that lacks changes is refused: give
    /// --replay-audit with an audit log that was exported later, or accept the loss. Edges load the restored keys as a
    /// new history, with revisions above all that they have seen.
    ///
    /// For PostgreSQL: stop all control planes, restore the backup with pg_restore or to a point in time, and run this
    /// without --from before you start one again.
    Restore(RestoreOptions),

    /// Copies the database from a file to PostgreSQL, or back. Stop the control plane first.
    ///
    /// Everything is copied with its whole history, in one transaction: an interrupted copy leaves the target
    /// unchanged. Rows and audit log are compared before the commit. The source is only read. A control plane that is
    /// then started on the target continues where the source stopped, and edges keep their tables.
    #[command(after_long_help = "Example:\n  \
        latchkey copy --from latchkey.db --to postgres://latchkey@db.example.com/latchkey \\\n    \
          --database-password-file db.password")]
    Copy(CopyOptions),

    /// Stores a control plane's URL and an admin token, for the other commands.
    ///
    /// On a terminal it asks for the token, otherwise it reads standard input or --token-file. The token is never an
    /// argument, because every process of a machine can read those. It is verified, and stored in
    /// ~/.config/latchkey/config.toml, readable only by you.
    #[command(after_long_help = "Example:\n  latchkey login --url https://keys.example.com")]
    Login(RemoteOptions),

    /// Deletes what `login` stored.
    Logout,

    /// Manages workspaces, the tenants.
    Workspaces(WorkspacesOptions),

    /// Manages keys: create, list, change, rotate, import, clean up.
    Keys(KeysOptions),

    /// Manages admin tokens.
    Tokens(TokensOptions),

    /// Manages edge tokens, which edges present to the feed.
    EdgeTokens(EdgeTokensOptions),

    /// Lists and removes the Envoy processes that use the feed.
    Edges(EdgesOptions),

    /// Reports whether a change is enforced on every worker of every edge.
    ///
    /// Exits with 3 if it isn't, and names the edges where it isn't.
    Enforcement(EnforcementOptions),

    /// Lists and exports the audit log, and verifies it in the database.
    #[command(subcommand)]
    Audit(AuditCommand),

    /// Reports what an edge would refuse in a configuration, and why.
    ///
    /// Takes a plugin configuration, or an Envoy file with our filter in it. In an Envoy file it also reports how
    /// requests could bypass the filter.
    CheckConfig(CheckConfigOptions),

    /// Prints an Envoy configuration for a gateway or sidecar: TLS, the filter, its guard, a rate limit, logs, all
    /// filled in.
    ///
    /// Save it and what the same command prints with `--print token-secret`, and run Envoy 1.37.1 or newer with it.
    #[command(after_long_help = "Example:\n  \
        latchkey envoy-config --control-plane https://keys.example.com:8444 --edge shop \\\n    \
          --upstream 127.0.0.1:8081 --route /v1/reviews=reviews > envoy.yaml")]
    EnvoyConfig(Box<EnvoyConfigOptions>),

    /// Explains the decision on a request: allowed or denied, by which rule, and why.
    ///
    /// It runs the same code as the filter in Envoy. Nothing is sent to an edge, and no secret is needed. Exits with 5
    /// if the request would be denied.
    Explain(ExplainOptions),

    /// Prints completions for a shell.
    #[command(after_help = "Example:\n  latchkey completions bash > /etc/bash_completion.d/latchkey")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Runs the command line, and reports a failure in a sentence. A wrong command line ends the process with 2.
pub fn run() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(Cli { command }) => command,
        Err(error) if error.use_stderr() => return usage_error(&error),
        // Help, or the version.
        Err(error) => error.exit(),
    };
    let log = match log(&command) {
        Ok(log) => log,
        Err(error) => {
            print_error(&format!("latchkey: cannot start a thread for the log: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    match execute(&command, log.as_ref()) {
        Ok(outcome) => outcome.code().into(),
        Err(error) if is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            let line = format!("latchkey: {error:#}\n");
            match &log {
                Some(log) => log.write_line(&without_secrets(&line)),
                None => print_error(&line),
            }
            exit_code(&error).into()
        }
    }
}

/// The log of a command that has one: those that work on the database directly.
fn log(command: &Command) -> std::io::Result<Option<Log>> {
    let has_log = matches!(command, Command::Serve(_) | Command::Backup(_) | Command::Restore(_) | Command::Copy(_));
    has_log.then(Log::start).transpose()
}

/// Reports a wrong command line.
fn usage_error(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    print_error(&text);
    if holds_secret(&text) {
        print_error(
            "latchkey: a secret was given as an argument, which every process of this machine can read: replace it\n",
        );
    }
    ExitCode::from(2)
}

#[expect(clippy::disallowed_methods, reason = "a command reports to its user; nothing else waits for it")]
fn print_error(text: &str) {
    // A failure can't be reported if stderr is gone.
    let _ = write!(std::io::stderr(), "{}", without_secrets(text));
}

fn execute(command: &Command, log: Option<&Log>) -> anyhow::Result<Outcome> {
    match command {
        Command::Serve(options) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let lines_lost = log.map(Log::lines_lost).unwrap_or_default();
            runtime.block_on(serve(options.clone(), lines_lost))?;
        }
        Command::Openapi => print(&openapi::text())?,
        Command::Backup(options) => run_backup(options)?,
        Command::Restore(options) => run_restore(options)?,
        Command::Copy(options) => run_copy(options)?,
        Command::Login(remote) => run_login(remote)?,
        Command::Logout => run_logout()?,
        Command::Workspaces(options) => return run_workspaces(options),
        Command::Keys(options) => return run_keys(options),
        Command::Tokens(options) => return run_tokens(options),
        Command::EdgeTokens(options) => return run_edge_tokens(options),
        Command::Edges(options) => return run_edges(options),
        Command::Enforcement(options) => return run_enforcement(options),
        Command::Audit(command) => return run_audit(command),
        Command::CheckConfig(options) => return run_check_config(options),
        Command::EnvoyConfig(options) => print(&run_envoy_config(options)?)?,
        Command::Explain(options) => return run_explain(options),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "latchkey", &mut script);
            print(&String::from_utf8_lossy(&script))?;
        }
    }
    Ok(Outcome::Done)
}
