//! The flags of `latchkey serve`.

use std::path::PathBuf;

use clap::Args;

use crate::base::public_url::PublicUrl;
use crate::serve::{DatabaseOptions, ListenAddress, TrustedProxy};

/// The options of `latchkey serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeOptions {
    /// Address or name and port to listen on; for a name, all of its addresses. Port 0 takes a free one. Or a Unix
    /// socket, unix:/run/latchkey/admin.sock, for the server's user and group only (mode 0660): it speaks plain HTTP,
    /// its clients have no address, and its file is removed when the server ends.
    #[arg(long, env = "LATCHKEY_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: ListenAddress,

    #[command(flatten)]
    pub database: DatabaseOptions,

    /// File with the platform admin's token, lkadm_…. Created with mode 0600 if it doesn't exist; refused if others can
    /// read it. A file of another owner may be readable by a group of the server's, as Kubernetes mounts it with
    /// fsGroup.
    #[arg(long, env = "LATCHKEY_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: PathBuf,

    /// File with the token that edges start with, lkedge_…. Created with mode 0600 if it doesn't exist; refused if
    /// others can read it.
    #[arg(long, env = "LATCHKEY_EDGE_TOKEN_FILE", value_name = "FILE")]
    pub edge_token_file: PathBuf,

    /// Environments, scope catalogue, length of the log, limits, and what the console shows of scopes and of your
    /// gateway (TOML, docs/operating.md). Without it: environments = ["live"], scopes = ["reviews", "workspaces",
    /// "credentials", "webhooks", "repositories", "security_scans"], log_revisions = 100000.
    #[arg(long, env = "LATCHKEY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The same for edges alone: /edge/v1, /healthz and /readyz (for edges). --listen then no longer serves /edge/v1.
    /// So admins and edges can be kept on separate networks.
    #[arg(long, env = "LATCHKEY_EDGE_LISTEN", value_name = "ADDRESS")]
    pub edge_listen: Option<ListenAddress>,

    /// TLS certificate with its chain (PEM), for both addresses, except Unix sockets. Reloaded when it changes, as is
    /// its key.
    #[arg(long, env = "LATCHKEY_TLS_CERTIFICATE", value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,

    /// The certificate's private key (PEM).
    #[arg(long, env = "LATCHKEY_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,

    /// Certificate authority (PEM) of the edges: --edge-listen then accepts only clients with a certificate of it. They
    /// still need their token.
    #[arg(long, env = "LATCHKEY_EDGE_CLIENT_CA", value_name = "FILE", requires_all = ["edge_listen", "tls_certificate"])]
    pub edge_client_ca: Option<PathBuf>,

    /// Where people and scripts reach the control plane, if that is not --listen itself: https://keys.example.com. The
    /// console takes forms only from its own pages at this address.
    #[arg(long, env = "LATCHKEY_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<PublicUrl>,

    /// Networks of the proxies in front of the control plane, separated by commas: for their requests the audit log and
    /// limits use the address in `x-forwarded-for`. Each proxy must append the address of the client that connects to
    /// it. `unix:` means all clients of the Unix sockets of --listen and --edge-listen.
    #[arg(long, env = "LATCHKEY_TRUSTED_PROXIES", value_name = "NETWORK", value_delimiter = ',')]
    pub trusted_proxies: Vec<TrustedProxy>,

    /// Serve plain HTTP on an address other than loopback. For when TLS is terminated in front of the control plane:
    /// tokens and secrets go over this connection.
    #[arg(long, env = "LATCHKEY_INSECURE_HTTP")]
    pub insecure_http: bool,

    /// How long a connection may be idle, in milliseconds; all deadlines of connections follow from it. For tests.
    #[arg(long, hide = true, value_name = "MILLISECONDS", default_value_t = 30_000)]
    pub still_ms: u64,

    /// How many bytes the bodies of imports may hold until they are complete and imported. For tests.
    #[arg(long, hide = true, value_name = "BYTES", default_value_t = 256 << 20)]
    pub import_spool_bytes: u64,
}
