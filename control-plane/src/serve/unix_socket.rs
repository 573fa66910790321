//! Unix sockets to listen on: their files exist while the service runs.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tokio::net::{UnixListener, UnixSocket};
use tracing::{info, warn};

use super::address::UNIX;
use super::listener::BACKLOG;

/// For the owner and its group, such as a proxy's.
const MODE: u32 = 0o660;

/// Listens at `path`. Replaces a socket that an earlier run left there, but not one that another program listens on,
/// nor a file that is no socket.
pub(super) fn listen(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    remove_stale_socket(path)?;
    let socket = UnixSocket::new_stream()?;
    socket
        .bind(path)
        .context("cannot create the socket: its folder must exist, and the service must be able to write to it")?;
    let file = SocketFile::of(path)?;
    // Nobody can connect before it listens, so the mode is set in time.
    fs::set_permissions(path, Permissions::from_mode(MODE)).context("cannot set the socket's mode")?;
    Ok((socket.listen(BACKLOG)?, file))
}

/// Removes a socket that no program listens on.
fn remove_stale_socket(path: &Path) -> anyhow::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(cause).context("cannot read its metadata"),
    };
    if !found.file_type().is_socket() {
        bail!("the file is not a socket; remove it, or choose another path");
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("another program listens there; stop it, or choose another path"),
        Err(cause) if cause.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).context("no program listens on it any more, but it cannot be removed")?;
            info!(socket = %path.display(), "replaced a socket that nobody listened on");
            Ok(())
        }
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(cause).context("cannot determine whether another program listens on it"),
    }
}

/// The socket's file. It is removed on drop, unless another socket has replaced it.
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> std::io::Result<Self> {
        let made = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), inode: (made.dev(), made.ino()) })
    }
}

impl fmt::Display for SocketFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{UNIX}{}", self.path.display())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.inode);
        if is_ours && let Err(cause) = fs::remove_file(&self.path) {
            warn!(socket = %self.path.display(), %cause, "cannot remove the socket; the next start replaces it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_replaced_only_when_nobody_listens_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        // As a killed run leaves it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (listener, file) = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let refused = listen(&path).err().unwrap().to_string();
        assert!(refused.contains("another program listens there"), "{refused}");
        drop((listener, file));
        assert!(!path.exists());

        fs::write(&path, "notes").unwrap();
        let refused = listen(&path).err().unwrap().to_string();
        assert!(refused.contains("the file is not a socket"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "notes");
        assert!(listen(&directory.path().join("nowhere/a.sock")).is_err());
    }

    #[tokio::test]
    async fn a_socket_that_replaced_ours_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let (_listener, file) = listen(&path).unwrap();
        fs::rename(&path, directory.path().join("moved.sock")).unwrap();
        let (_other, other_file) = listen(&path).unwrap();
        drop(file);
        assert!(path.exists());
        drop(other_file);
        assert!(!path.exists());
    }
}
