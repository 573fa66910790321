//! Output of a new secret: the secret once on standard output, everything else on standard error.

use std::io::{self, Write as _};

use anyhow::{Context as _, anyhow};
use serde_json::Value;
use zeroize::Zeroizing;

use super::connection::Session;
use super::json::{part, string};
use super::output::{print_json, print_note};

/// Prints an answer `{…, secret}`. `about` is for people.
pub(super) fn print(session: &Session, answer: &Value, about: &str) -> anyhow::Result<()> {
    if part(answer, &["secret"]).is_null() {
        return Err(lost(session, answer, about));
    }
    let written = if session.json {
        print_json(answer)
    } else {
        about.lines().for_each(print_note);
        print_note("the secret is shown this once:");
        write(string(answer, "secret"))
    };
    written.context(
        "created, but its secret could not be written and cannot be shown again: create another one, or rotate it",
    )
}

/// The first attempt was carried out, but its answer was lost.
fn lost(session: &Session, answer: &Value, about: &str) -> anyhow::Error {
    if session.json {
        if let Err(error) = print_json(answer) {
            return error;
        }
    } else {
        about.lines().for_each(print_note);
    }
    let next = match string(part(answer, &["key"]), "id") {
        "" => "revoke it, and create another one".to_owned(),
        id => format!("`latchkey keys rotate {id} --replace` gives the key a new one"),
    };
    anyhow!("created, but the answer with its secret was lost and cannot be shown again: {next}")
}

/// On its own line, so that `SECRET=$(latchkey keys create …)` captures it.
fn write(secret: &str) -> anyhow::Result<()> {
    let line = Zeroizing::new(format!("{secret}\n"));
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}
