//! Secrets from a file, from standard input, or typed without an echo. Never from an argument, which every process of
//! the machine can read.

use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use policy::key_text::{Kind, is_token};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::base::private_file;
use crate::base::secret::Secret;

/// The file's name that means standard input.
const STANDARD_INPUT: &str = "-";

/// The admin token in a file; `-` is standard input.
pub(super) fn read_admin_token(path: &Path) -> anyhow::Result<Secret> {
    let secret = if path == Path::new(STANDARD_INPUT) {
        read_secret("admin token")?
    } else {
        let mut file = File::open(path).with_context(|| format!("token file {}: cannot read it", path.display()))?;
        let metadata = file.metadata()?;
        // A pipe can only be read by its reader.
        if metadata.is_file() {
            private_file::check(&metadata).with_context(|| format!("token file {}", path.display()))?;
        }
        read_all(&mut file).with_context(|| format!("token file {}: cannot read it", path.display()))?
    };
    parse_admin_token(secret, &format!("token file {}", path.display()))
}

/// The token, if it has the shape of one.
pub(super) fn parse_admin_token(secret: Secret, place: &str) -> anyhow::Result<Secret> {
    if !is_token(secret.expose(), &Kind::AdminToken) {
        bail!(
            "{place}: expected one admin token (`lkadm_…`) and nothing else; its last characters are a checksum, so a typo shows here"
        );
    }
    Ok(secret)
}

/// A secret from standard input: typed without an echo on a terminal, else the whole input. `what` names it in the
/// prompt.
pub(super) fn read_secret(what: &str) -> anyhow::Result<Secret> {
    let input = io::stdin();
    if !input.is_terminal() {
        return read_all(&mut input.lock()).context("standard input: cannot read it");
    }
    let typed = {
        // Before the prompt, so that early typing isn't shown.
        let _guard = EchoGuard::disable_echo()?;
        prompt(&format!("{what} (not shown): "))?;
        let mut line = Zeroizing::new(String::with_capacity(256));
        input.lock().read_line(&mut line)?;
        line
    };
    prompt("\n")?;
    Ok(Secret::from_line(typed))
}

/// A yes from the terminal; anything else is a no.
pub(super) fn confirm(question: &str) -> anyhow::Result<bool> {
    prompt(&format!("{question} [y/N] "))?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[expect(clippy::disallowed_methods, reason = "a question to somebody at a terminal")]
fn prompt(text: &str) -> io::Result<()> {
    write!(io::stderr(), "{text}")
}

fn read_all(input: &mut impl io::Read) -> anyhow::Result<Secret> {
    Secret::read(input).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => anyhow!("expected text in UTF-8"),
        _ => error.into(),
    })
}

/// A terminal that doesn't show what is typed, until this is dropped.
struct EchoGuard(Termios);

impl EchoGuard {
    fn disable_echo() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for EchoGuard {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
