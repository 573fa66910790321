//! The command line: flag, then environment, then default. `--help` is the reference.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::serve::serve;

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
    /// (error, warn, info, debug; info by default). SIGTERM and SIGINT end it: what was accepted is answered first.
    ///
    /// A first start needs nothing but two paths for the token files:
    ///
    ///   latchkey serve --admin-token-file admin.token --edge-token-file edge.token
    #[command(verbatim_doc_comment)]
    Serve(ServeOptions),
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
    }
}

fn log_to_stderr() {
    let filter =
        EnvFilter::try_from_env("LATCHKEY_LOG").unwrap_or_else(|_| EnvFilter::new("info,rusqlite_migration=warn"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
}
