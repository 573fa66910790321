//! The command line: flag, then environment, then default. `--help` is the reference.

mod database;
mod envoy_config;

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use policy::ChainHash;
use tracing_subscriber::EnvFilter;

use self::database::{BackupOptions, RestoreOptions, run_backup, run_restore};
use self::envoy_config::{EnvoyConfigOptions, run_envoy_config};
use crate::api::openapi;
use crate::public_url::PublicUrl;
use crate::serve::serve;
use crate::store::{AuditHead, Verified, verify_audit};

/// API keys for Envoy, enforced at the edge: the control plane.
#[derive(Parser)]
#[command(name = "latchkey", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the control plane: REST under /v1 for admins, /edge/v1 for edges.
    ///
    /// Writes the address to standard output once it serves, and logs to standard error; LATCHKEY_LOG sets how much
    /// (error, warn, info, debug; info by default), and LATCHKEY_LOG_FORMAT=json makes each line an object. SIGTERM and SIGINT end it: what was accepted is answered first.
    ///
    /// A first start needs nothing but two paths for the token files:
    ///
    ///   latchkey serve --admin-token-file admin.token --edge-token-file edge.token
    #[command(verbatim_doc_comment)]
    Serve(ServeOptions),

    /// Prints the OpenAPI document of the REST API, as GET /openapi.json answers it.
    Openapi,

    /// Copies the database into a new file, also while a control plane serves it.
    ///
    /// The copy is of one instant, checked, on disk, and readable by its owner alone. `latchkey restore` puts it back.
    Backup(BackupOptions),

    /// Puts a backup in the place of the database. Stop the control plane first.
    ///
    /// What was revoked after the backup was made would be valid again, so a backup that lacks changes is refused: give
    /// --replay-audit with an audit log that was exported later, or accept the loss. Edges take the restored keys as a new
    /// history, with revisions above all that they have seen.
    Restore(RestoreOptions),

    /// Prints an Envoy configuration for a gateway or sidecar: TLS, the filter, its guard, a rate limit, logs, all filled in.
    ///
    /// Save it and what `--print token-secret` prints, and run Envoy 1.37.1 or newer with it:
    ///
    ///   latchkey envoy-config --control-plane https://keys.example.com:8444 --edge shop --upstream 127.0.0.1:8081 \
    ///     --route /v1/reviews=reviews --route /healthz=public > envoy.yaml
    #[command(verbatim_doc_comment)]
    EnvoyConfig(Box<EnvoyConfigOptions>),

    /// Reads the audit log where it rests.
    #[command(subcommand)]
    Audit(AuditCommand),
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Checks that no audit event was changed, removed or moved. Ends with 1 and names the first one that was.
    ///
    /// May run beside the control plane, or on a copy of the file. A log that was rewritten as a whole shows only against a
    /// hash that was noted elsewhere: `audit.head` in the control plane's log (hourly), or the hash of any exported event.
    Verify {
        /// The SQLite database.
        #[arg(long, env = "LATCHKEY_DATABASE", value_name = "FILE", default_value = "latchkey.db")]
        database: PathBuf,

        /// The hash of an event that must be in the log: 64 hexadecimal digits.
        #[arg(long, value_name = "HASH")]
        expect_head: Option<ChainHash>,
    },
}

/// What `latchkey serve` is told.
#[derive(Args, Clone, Debug)]
pub struct ServeOptions {
    /// Address and port to listen on. Port 0 takes a free one.
    #[arg(long, env = "LATCHKEY_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// The SQLite database. Made if it isn't there; one process at a time may have it open.
    #[arg(long, env = "LATCHKEY_DATABASE", value_name = "FILE", default_value = "latchkey.db")]
    pub database: PathBuf,

    /// The platform admin's token, lkadm_…. Made with mode 0600 if it isn't there; refused when others can read it.
    #[arg(long, env = "LATCHKEY_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: PathBuf,

    /// The token that edges start with, lkedge_…. Made with mode 0600 if it isn't there; refused when others can read it.
    #[arg(long, env = "LATCHKEY_EDGE_TOKEN_FILE", value_name = "FILE")]
    pub edge_token_file: PathBuf,

    /// Environments, scope catalogue and length of the log (TOML). Without it: environments = ["live"], scopes = ["reviews",
    /// "workspaces", "credentials", "webhooks", "repositories", "security_scans"], log_revisions = 100000.
    #[arg(long, env = "LATCHKEY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address and port for edges alone: /edge/v1 and /healthz. --listen then no longer serves /edge/v1. So admins can be
    /// kept off the edges' network, and edges off the admins'.
    #[arg(long, env = "LATCHKEY_EDGE_LISTEN", value_name = "ADDRESS")]
    pub edge_listen: Option<SocketAddr>,

    /// TLS certificate with its chain (PEM), for both addresses. Loaded anew when it changes, as is its key.
    #[arg(long, env = "LATCHKEY_TLS_CERTIFICATE", value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,

    /// The certificate's private key (PEM).
    #[arg(long, env = "LATCHKEY_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,

    /// Certificate authority (PEM) of the edges: at --edge-listen only clients with a certificate of it get in. Their token
    /// is needed besides.
    #[arg(long, env = "LATCHKEY_EDGE_CLIENT_CA", value_name = "FILE", requires_all = ["edge_listen", "tls_certificate"])]
    pub edge_client_ca: Option<PathBuf>,

    /// Where people and scripts reach the control plane, if that is not --listen itself: https://keys.example.com
    #[arg(long, env = "LATCHKEY_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<PublicUrl>,

    /// Serve plain HTTP on an address other than loopback. For when TLS ends in front of the control plane: tokens and
    /// secrets go over this connection.
    #[arg(long, env = "LATCHKEY_INSECURE_HTTP")]
    pub insecure_http: bool,
}

/// Runs what the command line asks for. A wrong command line ends the process with 2.
pub fn run() -> anyhow::Result<()> {
    let Cli { command } = Cli::parse();
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match command {
        Command::Serve(options) => runtime.block_on(serve(options)),
        Command::Openapi => Ok(write!(std::io::stdout(), "{}", openapi::text())?),
        Command::Backup(options) => run_backup(&options),
        Command::Restore(options) => run_restore(&options),
        Command::EnvoyConfig(options) => run_envoy_config(&options),
        Command::Audit(AuditCommand::Verify { database, expect_head }) => verify(&database, expect_head),
    }
}

fn verify(database: &Path, expected: Option<ChainHash>) -> anyhow::Result<()> {
    let Verified { events, head } = verify_audit(database, expected)?;
    let mut out = std::io::stdout();
    match head {
        Some(AuditHead { revision, hash }) => {
            writeln!(out, "{events} audit events, each as it was written; the last at revision {revision}: {hash}")?;
        }
        None => writeln!(out, "no audit events")?,
    }
    Ok(())
}

fn log_to_stderr() {
    let filter =
        EnvFilter::try_from_env("LATCHKEY_LOG").unwrap_or_else(|_| EnvFilter::new("info,rusqlite_migration=warn"));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if std::env::var("LATCHKEY_LOG_FORMAT").is_ok_and(|format| format == "json") {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(colours).init();
    }
}
