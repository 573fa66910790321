//! `latchkey login` and `latchkey logout`: store and delete the token of the other commands.

use super::client::Call;
use super::connection::{RemoteOptions, delete_stored};
use super::output::print;

pub(super) fn run_login(remote: &RemoteOptions) -> anyhow::Result<()> {
    let (client, sign_in) = remote.sign_in()?;
    // Every role may call this, so a token that doesn't work isn't stored.
    client.send(Call::get(&["v1", "workspaces"]).query("limit", Some(1)))?;
    let (path, url) = sign_in.store()?;
    print(&format!("signed in to {url}; the token is stored in {}, readable only by you\n", path.display()))
}

pub(super) fn run_logout() -> anyhow::Result<()> {
    match delete_stored()? {
        Some(path) => print(&format!(
            "deleted the stored token, {}; it is still valid: revoke it with `latchkey tokens revoke`\n",
            path.display()
        )),
        None => print("not signed in\n"),
    }
}
