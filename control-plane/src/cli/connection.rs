//! The control plane and token of a command: from a flag, else the environment, else what `latchkey login` stored.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use axum::http::Uri;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::NamedTempFile;
use zeroize::{Zeroize as _, Zeroizing};

use super::client::Client;
use super::failure::Failure;
use super::output::{print, print_json};
use super::secret_input;
use crate::base::private_file;
use crate::base::public_url::PublicUrl;
use crate::base::secret::Secret;

/// The options of all commands that send requests to a control plane.
#[derive(Args)]
pub(super) struct RemoteOptions {
    /// The control plane. Without it, the one that `latchkey login` stored.
    #[arg(long, env = "LATCHKEY_URL", value_name = "URL", global = true, help_heading = "Control plane")]
    url: Option<PublicUrl>,

    /// A file with the admin token, `-` for standard input. Without it, the token that `latchkey login` stored.
    #[arg(long, env = "LATCHKEY_TOKEN_FILE", value_name = "FILE", global = true, help_heading = "Control plane")]
    token_file: Option<PathBuf>,

    /// Certificate authority (PEM) of the control plane, in place of the system's.
    #[arg(long, env = "LATCHKEY_CA_CERTIFICATE", value_name = "FILE", global = true, help_heading = "Control plane")]
    ca_certificate: Option<PathBuf>,

    /// Send the token over plain HTTP, even though the control plane isn't on this machine.
    #[arg(long, global = true, help_heading = "Control plane")]
    insecure_http: bool,

    /// Print the control plane's JSON.
    #[arg(long, global = true, help_heading = "Control plane")]
    json: bool,
}

/// The client of a command, and the form of its output.
pub(super) struct Session {
    pub client: Client,
    pub json: bool,
}

impl Session {
    /// Prints an answer: as it is for scripts, or for people the text that `text` makes of it.
    pub(super) fn print(&self, answer: &Value, text: impl FnOnce(&Value) -> String) -> anyhow::Result<()> {
        if self.json { print_json(answer) } else { print(&text(answer)) }
    }

    /// Prints what was done, where the answer has no body. Scripts need only the exit code.
    pub(super) fn print_done(&self, line: &str) -> anyhow::Result<()> {
        if self.json { Ok(()) } else { print(&format!("{line}\n")) }
    }
}

/// What `latchkey login` stores.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSignIn {
    url: String,
    token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_certificate: Option<PathBuf>,
    #[serde(default)]
    insecure_http: bool,
}

impl Drop for StoredSignIn {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

impl RemoteOptions {
    /// Whether the output is JSON, for scripts.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// The client of this command. Nothing is sent yet.
    pub(super) fn session(&self) -> anyhow::Result<Session> {
        let stored = if self.url.is_some() && self.token_file.is_some() { None } else { load_stored()? };
        let Some(url) = self.url.clone().or_else(|| stored.as_ref()?.url.parse().ok()) else {
            return Err(not_signed_in("no control plane is named").into());
        };
        // A stored token belongs to the control plane that it was stored for, and is never sent to another.
        let own = stored.filter(|stored| stored.url == url.to_string());
        let token = match (&self.token_file, &own) {
            (Some(path), _) => secret_input::read_admin_token(path)?,
            (None, Some(own)) => secret_input::parse_admin_token(Secret::new(own.token.clone()), "the stored token")?,
            (None, None) => return Err(not_signed_in(&format!("there is no token for {url}")).into()),
        };
        let ca_certificate = self.ca_certificate.clone().or_else(|| own.as_ref()?.ca_certificate.clone());
        let is_insecure_accepted = self.insecure_http || own.as_ref().is_some_and(|own| own.insecure_http);
        let client = client(&url, token, ca_certificate.as_deref(), is_insecure_accepted)?;
        Ok(Session { client, json: self.json })
    }

    /// For `latchkey login`, which asks for a token: a client with it, and what to store.
    pub(super) fn sign_in(&self) -> anyhow::Result<(Client, SignIn)> {
        let Some(url) = self.url.clone() else {
            let message = "name the control plane: latchkey login --url https://keys.example.com";
            return Err(Failure::Usage(message.to_owned()).into());
        };
        let token = match &self.token_file {
            Some(path) => secret_input::read_admin_token(path)?,
            None => secret_input::parse_admin_token(secret_input::read_secret("admin token")?, "the token")?,
        };
        // A later command may run in another folder.
        let ca_certificate = match &self.ca_certificate {
            Some(path) => Some(path.canonicalize().with_context(|| path.display().to_string())?),
            None => None,
        };
        let stored = StoredSignIn {
            url: url.to_string(),
            token: token.expose().to_owned(),
            ca_certificate,
            insecure_http: self.insecure_http,
        };
        let client = client(&url, token, stored.ca_certificate.as_deref(), self.insecure_http)?;
        Ok((client, SignIn(stored)))
    }
}

/// What to store once the token has been tried.
pub(super) struct SignIn(StoredSignIn);

impl SignIn {
    /// Stores it, readable only by its owner; returns the file and the control plane's URL.
    pub(super) fn store(&self) -> anyhow::Result<(PathBuf, String)> {
        let path = config_file()?;
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("{}: cannot create it", folder.display()))?;
        write(&path, folder, &self.0).with_context(|| format!("{}: cannot write it", path.display()))?;
        Ok((path, self.0.url.clone()))
    }
}

/// Deletes what was stored; `None` if there was nothing.
pub(super) fn delete_stored() -> anyhow::Result<Option<PathBuf>> {
    let path = config_file()?;
    match fs::remove_file(&path) {
        Ok(()) => Ok(Some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{}: cannot remove it", path.display())),
    }
}

fn client(url: &PublicUrl, token: Secret, ca: Option<&Path>, insecure_accepted: bool) -> anyhow::Result<Client> {
    let url = url.to_string();
    if url.starts_with("http://") && !is_loopback(&url) && !insecure_accepted {
        bail!(
            "{url}: plain HTTP would show the token to the network; use https://, or --insecure-http where the network is your own"
        );
    }
    Client::new(url, token, ca)
}

/// True for a host on this machine.
pub(super) fn is_loopback(url: &str) -> bool {
    let uri = url.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

fn not_signed_in(what: &str) -> Failure {
    Failure::Usage(format!(
        "{what}: sign in with `latchkey login --url https://…`, or give --url and --token-file (LATCHKEY_URL, LATCHKEY_TOKEN_FILE)"
    ))
}

/// `latchkey/config.toml` in the user's configuration folder.
fn config_file() -> anyhow::Result<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    let folder = folder.ok_or_else(|| {
        Failure::Usage(
            "neither XDG_CONFIG_HOME nor HOME is set, so there is no place for the sign-in: give --url and --token-file"
                .to_owned(),
        )
    })?;
    Ok(folder.join("latchkey").join("config.toml"))
}

fn load_stored() -> anyhow::Result<Option<StoredSignIn>> {
    // If there is no place to store anything, nothing is stored.
    let Ok(path) = config_file() else { return Ok(None) };
    let cannot = || format!("{}: cannot read it", path.display());
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(cannot),
    };
    private_file::check(&file.metadata().with_context(cannot)?).with_context(|| path.display().to_string())?;
    let text = Zeroizing::new(io::read_to_string(file).with_context(cannot)?);
    // The parser's error may quote the line with the token.
    let Ok(stored) = toml::from_str(&text) else {
        bail!("{}: not a file as `latchkey login` writes it; sign in again", path.display());
    };
    Ok(Some(stored))
}

/// Replaces the file atomically: it is never incomplete, and never readable by others.
fn write(path: &Path, folder: &Path, stored: &StoredSignIn) -> anyhow::Result<()> {
    let text = Zeroizing::new(toml::to_string(stored)?);
    // Mode 0600; removed again if it can't be completed.
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|refused| refused.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_distinguished_from_other_hosts() {
        for (url, expected) in [
            ("http://localhost:8080", true),
            ("http://127.0.0.1:8080", true),
            ("http://127.9.0.1", true),
            ("http://[::1]:8080", true),
            ("http://localhost.example.com", false),
            ("http://192.0.2.1:8080", false),
            ("http://[2001:db8::1]", false),
        ] {
            assert_eq!(is_loopback(url), expected, "{url}");
        }
    }
}
