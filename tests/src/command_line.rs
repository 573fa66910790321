//! `latchkey` as a script runs it, against a control plane.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::control_plane::ControlPlane;
use crate::process::built;

/// Commands as the platform admin, in the workspace `acme` unless they name another one.
pub struct CommandLine {
    url: String,
    folder: PathBuf,
}

/// The exit code and the output of a command.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl CommandLine {
    pub fn of(control_plane: &ControlPlane) -> Self {
        Self { url: control_plane.url(), folder: control_plane.folder().to_owned() }
    }

    pub fn run(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = Command::new(built("dist/latchkey"));
        command.current_dir(&self.folder).env_clear().args(arguments);
        command.env("LATCHKEY_URL", &self.url).env("LATCHKEY_TOKEN_FILE", "admin-token");
        command.env("LATCHKEY_WORKSPACE", "acme").env("HOME", &self.folder);
        CommandOutput::from(command.output().expect("latchkey"))
    }

    /// Runs a command that must end with 0; returns its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.run_ok(arguments).stdout
    }

    /// As [`Self::ok`]; returns standard error, too.
    pub fn run_ok(&self, arguments: &[&str]) -> CommandOutput {
        let output = self.run(arguments);
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        output
    }
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}
