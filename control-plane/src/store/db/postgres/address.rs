//! How to reach a PostgreSQL database: a URL, and a password that may come from elsewhere.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use postgres::Config;
use postgres::config::{Host, SslMode, TargetSessionAttrs};
use zeroize::Zeroizing;

use super::tls::Tls;
use crate::base::private_file;

/// The longest that connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The server counts as gone if it hasn't acknowledged data, or answered a probe, for this long.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of a password file.
const MAX_FILE_BYTES: u64 = 4096;

/// Everything that a connection needs. Has no `Debug`, because it contains the password.
pub(super) struct Address {
    pub(super) config: Config,
    /// `None`: without TLS.
    pub(super) tls: Option<Tls>,
}

impl Address {
    /// Parses a `postgres://` URL. The password comes from the URL, else from the file, else from PGPASSWORD. The error
    /// states what to do, and contains nothing of the URL that could be secret.
    pub(super) fn parse(url: &str, password_file: Option<&Path>) -> Result<Self, String> {
        let (url, tls_parameters) = split_tls_parameters(url);
        let mut config: Config =
            url.parse().map_err(|_| "it is not a URL like postgres://user@host:5432/latchkey".to_owned())?;
        if config.get_hosts().is_empty() {
            return Err("it names no host; write postgres://user@host:5432/latchkey".to_owned());
        }
        if config.get_password().is_none() {
            let password = match password_file {
                Some(path) => Some(read_password(path)?),
                None => std::env::var("PGPASSWORD").ok().map(Zeroizing::new),
            };
            if let Some(password) = password {
                config.password(password.as_bytes());
            }
        }
        if config.get_application_name().is_none() {
            config.application_name("latchkey");
        }
        config.connect_timeout(CONNECT_TIMEOUT);
        config.tcp_user_timeout(SILENCE_TIMEOUT);
        config.keepalives_idle(SILENCE_TIMEOUT / 2).keepalives_interval(Duration::from_secs(1)).keepalives_retries(5);
        // Of several hosts, use the one that accepts writes: never a standby.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.notice_callback(|notice| tracing::debug!(notice = notice.message(), "PostgreSQL notice"));
        let is_local = config.get_hosts().iter().all(is_local);
        let tls = match tls_parameters.mode.as_deref() {
            Some("disable") => None,
            None if is_local && tls_parameters.roots.is_none() => None,
            None | Some("verify-full") => Some(Tls::with_roots(tls_parameters.roots.as_deref().map(Path::new))?),
            Some(_) => {
                return Err(
                    "its sslmode is neither `disable` nor `verify-full`: other modes don't verify the server. For a \
                            private certificate authority, give sslrootcert=FILE with verify-full"
                        .to_owned(),
                );
            }
        };
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        Ok(Self { config, tls })
    }
}

/// A database's URL for messages, without its password and parameters.
pub(crate) fn display_url(url: &str) -> String {
    let Ok(config) = split_tls_parameters(url).0.parse::<Config>() else { return "postgres://…".to_owned() };
    let mut display_url = String::from("postgres://");
    if let Some(user) = config.get_user() {
        display_url.push_str(user);
        display_url.push('@');
    }
    for (number, host) in config.get_hosts().iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        let port = config.get_ports().get(number).or(config.get_ports().first()).unwrap_or(&5432);
        let _ = match host {
            Host::Tcp(name) => write!(display_url, "{comma}{name}:{port}"),
            Host::Unix(path) => write!(display_url, "{comma}{}", path.display()),
        };
    }
    display_url.push('/');
    display_url.push_str(config.get_dbname().unwrap_or_default());
    display_url
}

/// The URL's TLS parameters. They are for rustls; the client library doesn't get them.
#[derive(Default)]
struct TlsParameters {
    mode: Option<String>,
    roots: Option<String>,
}

/// Splits the TLS parameters off a URL.
fn split_tls_parameters(url: &str) -> (Zeroizing<String>, TlsParameters) {
    let mut tls_parameters = TlsParameters::default();
    let Some((before, query)) = url.split_once('?') else { return (Zeroizing::new(url.to_owned()), tls_parameters) };
    let mut rest = Zeroizing::new(before.to_owned());
    let mut separator = '?';
    for parameter in query.split('&') {
        let value = || form_urlencoded::parse(parameter.as_bytes()).next().map(|(_, value)| value.into_owned());
        match parameter.split_once('=').map(|(name, _)| name) {
            Some("sslmode") => tls_parameters.mode = value(),
            Some("sslrootcert") => tls_parameters.roots = value(),
            _ => {
                rest.push(separator);
                rest.push_str(parameter);
                separator = '&';
            }
        }
    }
    (rest, tls_parameters)
}

/// Whether the host is this machine, so that traffic to it crosses no network.
fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
    }
}

fn read_password(path: &Path) -> Result<Zeroizing<String>, String> {
    let failed = |cause: std::io::Error| format!("password file {}: cannot read it: {cause}", path.display());
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    private_file::check(&metadata).map_err(|exposed| format!("password file {}: {exposed}", path.display()))?;
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX_FILE_BYTES).unwrap_or_default()));
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("password file {}: it is empty", path.display())),
        password => Ok(Zeroizing::new(password.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displayed_url_has_no_password_and_no_parameters() {
        for (url, expected) in [
            (
                "postgres://keys:hush@db.example.com/latchkey?sslmode=verify-full",
                "postgres://keys@db.example.com:5432/latchkey",
            ),
            ("postgresql://a:hush@h1:5433,h2:5434/x", "postgres://a@h1:5433,h2:5434/x"),
            ("postgres://u:hush@/x?host=/run/postgresql", "postgres://u@/run/postgresql/x"),
            ("postgres://u:hush@h:nowhere/x", "postgres://…"),
        ] {
            assert_eq!(display_url(url), expected);
        }
    }

    #[test]
    fn tls_is_required_unless_the_server_is_local_and_always_verifies() {
        let tls = |url: &str| Address::parse(url, None).map(|address| address.tls.is_some());
        for (url, expected) in [
            ("postgres://u@localhost/x", false),
            ("postgres://u@127.0.0.1,[::1]/x", false),
            ("postgres://u@/x?host=/run/postgresql", false),
            ("postgres://u@db.example.com/x", true),
            ("postgres://u@localhost,db.example.com/x", true),
            ("postgres://u@db.example.com/x?sslmode=disable", false),
            ("postgres://u@localhost/x?sslmode=verify-full", true),
        ] {
            assert_eq!(tls(url), Ok(expected), "{url}");
        }
        for mode in ["prefer", "allow", "require", "verify-ca", ""] {
            let url = format!("postgres://u:hush@db.example.com/x?sslmode={mode}");
            assert!(tls(&url).is_err_and(|error| error.contains("verify-full") && !error.contains("hush")), "{mode}");
        }
    }

    #[test]
    fn a_password_comes_from_the_url_or_a_file_that_others_can_t_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "hush\n").unwrap();
        let parse = |url: &str| {
            Address::parse(url, Some(&path)).map(|address| address.config.get_password().map(<[u8]>::to_vec))
        };
        assert!(parse("postgres://u@localhost/x").is_err_and(|error| error.contains("chmod 600")));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(parse("postgres://u@localhost/x"), Ok(Some(b"hush".to_vec())));
        assert_eq!(parse("postgres://u:own@localhost/x"), Ok(Some(b"own".to_vec())));
        std::fs::write(&path, "\n").unwrap();
        assert!(parse("postgres://u@localhost/x").is_err_and(|error| error.contains("empty")));
    }
}
