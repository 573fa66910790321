//! Private files, those with a token or a password: only their owner may read them, or a group of this process.

use std::fs::{File, Metadata, OpenOptions, remove_file};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::process::{getegid, geteuid, getgroups};

/// Who a file is exposed to, and what to do. The caller puts the file's name before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileExposure {
    #[error(
        "others can read it (mode {mode:03o}); run `chmod 600` on it, and replace what is in it if it may have been seen"
    )]
    Others { mode: u32 },
    #[error(
        "its group can do more than read it (mode {mode:03o}); run `chmod 600` on it, and replace what is in it if it may have \
         been changed"
    )]
    Writers { mode: u32 },
    #[error(
        "its group can read it though it is this process's own file (mode {mode:03o}); run `chmod 600` on it, and replace what \
         is in it if it may have been seen"
    )]
    OwnGroup { mode: u32 },
    #[error(
        "group {group} can read it (mode {mode:03o}), and this process isn't in that group; give the file one of the process's \
         groups (`chgrp`; `fsGroup` in Kubernetes) or run `chmod 600` on it, and replace what is in it if it may have been seen"
    )]
    OtherGroup { mode: u32, group: u32 },
}

/// The user and the groups of this process.
struct Process {
    user: u32,
    groups: Vec<u32>,
}

/// Checks that a file can be read only by its owner, or by a group that gives this process access to it. Kubernetes
/// mounts a secret with `fsGroup` like that: the file is root's, 0440, and its group is one of the process's.
pub(crate) fn check(file: &Metadata) -> Result<(), FileExposure> {
    // If that fails, only the process's own group counts.
    let groups = getgroups().unwrap_or_default().into_iter().chain([getegid()]).map(|group| group.as_raw());
    let process = Process { user: geteuid().as_raw(), groups: groups.collect() };
    process.may_use(file.mode() & 0o777, file.uid(), file.gid())
}

/// Creates a file with this content that only its owner can read. On an error there is no file: half a secret would be
/// refused at each later start.
pub(crate) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    // Exclusive: a file that appears there meanwhile is not overwritten, and a link is not followed.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    write(file, path, content).inspect_err(|_| {
        let _ = remove_file(path);
    })
}

fn write(mut file: File, path: &Path, content: &[u8]) -> io::Result<()> {
    file.write_all(content)?;
    file.sync_all()?;
    // The name must survive a power failure, too; otherwise the next start would create another secret.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

impl Process {
    fn may_use(&self, mode: u32, owner: u32, group: u32) -> Result<(), FileExposure> {
        if mode & 0o007 != 0 {
            Err(FileExposure::Others { mode })
        } else if mode & 0o030 != 0 {
            Err(FileExposure::Writers { mode })
        } else if mode & 0o040 == 0 {
            Ok(())
        } else if owner == self.user {
            Err(FileExposure::OwnGroup { mode })
        } else if !self.groups.contains(&group) {
            Err(FileExposure::OtherGroup { mode, group })
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_or_a_group_of_the_process_may_read_a_file() {
        let process = Process { user: 1000, groups: vec![1000, 2000] };
        let (own, root) = (1000, 0);
        for (mode, owner, group, expected) in [
            (0o600, own, 1000, Ok(())),
            (0o400, own, 2000, Ok(())),
            (0o600, root, 0, Ok(())),
            (0o440, root, 2000, Ok(())),
            (0o640, root, 1000, Ok(())),
            (0o640, own, 2000, Err(FileExposure::OwnGroup { mode: 0o640 })),
            (0o440, root, 3000, Err(FileExposure::OtherGroup { mode: 0o440, group: 3000 })),
            (0o660, root, 2000, Err(FileExposure::Writers { mode: 0o660 })),
            (0o420, root, 2000, Err(FileExposure::Writers { mode: 0o420 })),
            (0o450, root, 2000, Err(FileExposure::Writers { mode: 0o450 })),
            (0o444, root, 2000, Err(FileExposure::Others { mode: 0o444 })),
            (0o604, own, 1000, Err(FileExposure::Others { mode: 0o604 })),
            (0o601, own, 1000, Err(FileExposure::Others { mode: 0o601 })),
            (0o602, root, 2000, Err(FileExposure::Others { mode: 0o602 })),
        ] {
            assert_eq!(process.may_use(mode, owner, group), expected, "{mode:03o}, owner {owner}, group {group}");
        }
    }
}
