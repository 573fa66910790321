//! `latchkey login` and `latchkey logout`: store and delete the token of the other commands.

use super::client::Call;
use super::connection::{Remote, forget};
use super::output::say;

pub(super) fn run_login(remote: &Remote) -> anyhow::Result<()> {
    let (client, sign_in) = remote.sign_in()?;
    // Every role may call this, so a token that doesn't work isn't stored.
    client.send(Call::get(&["v1", "workspaces"]).query("limit", Some(1)))?;
    let (path, url) = sign_in.store()?;
    say(&format!("signed in to {url}; the token is in {}, for you alone\n", path.display()))
}

pub(super) fn run_logout() -> anyhow::Result<()> {
    match forget()? {
        Some(path) => say(&format!(
            "forgot the token in {}; it is still valid: `latchkey tokens revoke` ends it\n",
            path.display()
        )),
        None => say("nobody was signed in\n"),
    }
}
