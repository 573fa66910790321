//! What was made with a secret: the secret to standard output, this once, and all else to standard error.

use std::io::{self, Write as _};

use anyhow::Context as _;
use serde_json::Value;
use zeroize::Zeroizing;

use super::connection::Session;
use super::json::word;
use super::output::{remark, say_json};

/// Tells of an answer `{…, secret}`. `about` is for people.
pub fn tell(session: &Session, answer: &Value, about: &str) -> anyhow::Result<()> {
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

/// A line of its own, so that `SECRET=$(latchkey keys create …)` has it.
fn write(secret: &str) -> anyhow::Result<()> {
    let line = Zeroizing::new(format!("{secret}\n"));
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}
