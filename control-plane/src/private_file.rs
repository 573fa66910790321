//! Files that hold a token or a password: who besides this process may read them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use rustix::process::{getegid, geteuid, getgroups};

/// Who a file is exposed to, with what to do. The file's name goes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exposed {
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

/// Who asks.
struct Process {
    user: u32,
    groups: Vec<u32>,
}

/// That nobody reads a file but its owner, or a group that it was handed to this process by: as Kubernetes mounts a secret with
/// `fsGroup`, where the file is root's, 0440, and its group one of the process's.
pub(crate) fn check(file: &Metadata) -> Result<(), Exposed> {
    // Without an answer the process is in its own group alone.
    let groups = getgroups().unwrap_or_default().into_iter().chain([getegid()]).map(|group| group.as_raw());
    let process = Process { user: geteuid().as_raw(), groups: groups.collect() };
    process.may_use(file.mode() & 0o777, file.uid(), file.gid())
}

impl Process {
    fn may_use(&self, mode: u32, owner: u32, group: u32) -> Result<(), Exposed> {
        if mode & 0o007 != 0 {
            Err(Exposed::Others { mode })
        } else if mode & 0o030 != 0 {
            Err(Exposed::Writers { mode })
        } else if mode & 0o040 == 0 {
            Ok(())
        } else if owner == self.user {
            Err(Exposed::OwnGroup { mode })
        } else if !self.groups.contains(&group) {
            Err(Exposed::OtherGroup { mode, group })
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_owner_s_or_handed_to_a_group_of_the_process_to_be_read() {
        let process = Process { user: 1000, groups: vec![1000, 2000] };
        let (own, root) = (1000, 0);
        for (mode, owner, group, expected) in [
            (0o600, own, 1000, Ok(())),
            (0o400, own, 2000, Ok(())),
            (0o600, root, 0, Ok(())),
            (0o440, root, 2000, Ok(())),
            (0o640, root, 1000, Ok(())),
            (0o640, own, 2000, Err(Exposed::OwnGroup { mode: 0o640 })),
            (0o440, root, 3000, Err(Exposed::OtherGroup { mode: 0o440, group: 3000 })),
            (0o660, root, 2000, Err(Exposed::Writers { mode: 0o660 })),
            (0o420, root, 2000, Err(Exposed::Writers { mode: 0o420 })),
            (0o450, root, 2000, Err(Exposed::Writers { mode: 0o450 })),
            (0o444, root, 2000, Err(Exposed::Others { mode: 0o444 })),
            (0o604, own, 1000, Err(Exposed::Others { mode: 0o604 })),
            (0o601, own, 1000, Err(Exposed::Others { mode: 0o601 })),
            (0o602, root, 2000, Err(Exposed::Others { mode: 0o602 })),
        ] {
            assert_eq!(process.may_use(mode, owner, group), expected, "{mode:03o}, owner {owner}, group {group}");
        }
    }
}
