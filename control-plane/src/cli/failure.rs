//! How a command ends: its exit code, and the sentence that goes with a bad one.

use std::io;

/// How a command ended that did what it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// `check-config`: an edge would refuse it.
    Refused,
    /// `--wait` and `enforcement`: the change is made, and not yet enforced everywhere.
    NotEnforced,
    /// `explain`: the request would be denied.
    Denied,
}

impl Outcome {
    /// The exit code, as docs/cli.md lists them.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::NotEnforced => 3,
            Self::Denied => 5,
        }
    }
}

/// Why a command failed, where that isn't simply 1. The text never has a secret.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something is missing on the command line that clap can't know of.
    #[error("{0}")]
    Usage(String),
    /// Nobody answered, or somebody who can't at the moment.
    #[error("{0}")]
    Unreachable(String),
    /// The same of a request that may have been carried out: its answer was lost, or there is none yet.
    #[error("{0}")]
    AnswerLost(String),
}

/// The exit code of an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(Failure::Usage(_)) => 2,
        Some(Failure::Unreachable(_) | Failure::AnswerLost(_)) => 4,
        None => 1,
    }
}

/// True when whoever reads the output has seen enough, as `head` has.
pub fn is_unread(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
