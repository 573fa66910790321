//! How a command ends: its exit code, and the message of a failure.

use std::io;

/// The outcome of a command that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// `check-config`: an edge would refuse the file.
    Refused,
    /// `--wait` and `enforcement`: the change is made, but not yet enforced everywhere.
    NotEnforced,
    /// `explain`: the request would be denied.
    Denied,
}

impl Outcome {
    /// The exit code, as docs/cli.md lists them.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::NotEnforced => 3,
            Self::Denied => 5,
        }
    }
}

/// A failure with an exit code other than 1. The text never contains a secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The command line lacks something that clap can't check.
    #[error("{0}")]
    Usage(String),
    /// The control plane didn't answer, or is temporarily unavailable.
    #[error("{0}")]
    Unreachable(String),
    /// The same for a request that may have been carried out: its answer was lost, or there is none yet.
    #[error("{0}")]
    AnswerLost(String),
}

/// The exit code of an error.
pub(super) fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(Failure::Usage(_)) => 2,
        Some(Failure::Unreachable(_) | Failure::AnswerLost(_)) => 4,
        None => 1,
    }
}

/// True if the reader of the output closed it, as `head` does.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
