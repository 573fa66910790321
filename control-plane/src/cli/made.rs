//! Output of a new secret: the secret once on standard output, everything else on standard error.

use std::io::{self, Write as _};

use anyhow::{Context as _, anyhow};
use serde_json::Value;
use zeroize::Zeroizing;

use super::connection::Session;
use super::json::{part, word};
use super::output::{remark, say_json};

/// Prints an answer `{…, secret}`. `about` is for people.
pub fn tell(session: &Session, answer: &Value, about: &str) -> anyhow::Result<()> {
    if part(answer, &["secret"]).is_null() {
        return Err(lost(session, answer, about));
    }
    let told = if session.json {
        say_json(answer)
    } else {
        about.lines().for_each(remark);
        remark("the secret is shown this once:");
        write(word(answer, "secret"))
    };
    told.context(
        "it is made, but its secret could not be written, and nobody can show it again: make another one, or rotate it",
    )
}

/// The first attempt was carried out, but its answer was lost.
fn lost(session: &Session, answer: &Value, about: &str) -> anyhow::Error {
    if session.json {
        if let Err(error) = say_json(answer) {
            return error;
        }
    } else {
        about.lines().for_each(remark);
    }
    let next = match word(part(answer, &["key"]), "id") {
        "" => "revoke it, and make another one".to_owned(),
        id => format!("`latchkey keys rotate {id} --replace` gives the key another one"),
    };
    anyhow!("it is made, but the answer with its secret was lost, and nobody can show it again: {next}")
}

/// On its own line, so that `SECRET=$(latchkey keys create …)` captures it.
fn write(secret: &str) -> anyhow::Result<()> {
    let line = Zeroizing::new(format!("{secret}\n"));
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}
