//! The command line as a process: the real binary, against a control plane that the same binary serves.

mod check_config;
mod clean_up;
mod explain;
mod help;
mod import;
mod keys;
mod others;
mod retries;
mod secrets;
mod sign_in;

use std::fs::{File, read_to_string};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::start::{Running, command};
use test_support::databases;

/// A control plane with a workspace, `acme`, and a user who has signed in.
pub(crate) struct Cli {
    pub running: Running,
    pub directory: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Cli {
    pub(crate) fn start() -> Self {
        let cli = Self::start_unsigned(&[]);
        cli.ok_with(&["login", "--url", &cli.url()], &cli.token());
        cli.ok(&["workspaces", "create", "Acme Inc", "--slug", "acme"]);
        cli
    }

    /// Nobody has signed in, and there is no workspace.
    pub(crate) fn start_unsigned(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("home")).unwrap();
        let mut serve = command(directory.path(), flags);
        serve.env("LATCHKEY_LOG", "debug").stderr(File::create(directory.path().join("serve.log")).unwrap());
        Self { running: Running::start(serve), directory }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.running.address)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The platform admin's token.
    pub(crate) fn token(&self) -> String {
        read_to_string(self.at("admin.token")).unwrap().trim().to_owned()
    }

    /// What the control plane has logged so far.
    pub(crate) fn log(&self) -> String {
        read_to_string(self.at("serve.log")).unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
        command.current_dir(self.directory.path()).env_clear().env("HOME", self.at("home")).args(arguments);
        command.env("LATCHKEY_DATABASE", databases::of(self.directory.path()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> CommandOutput {
        self.run_with(arguments, "")
    }

    /// Runs a command with this standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> CommandOutput {
        let mut child = self.command(arguments).spawn().unwrap();
        // It may end before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        CommandOutput::from(child.wait_with_output().unwrap())
    }

    /// Runs a command on a terminal from `script`, and types a line once `prompt` is shown. Returns the exit code and
    /// everything that was shown.
    pub(crate) fn on_terminal(&self, arguments: &[&str], prompt: &str, typed: &str) -> (i32, String) {
        let quoted: Vec<_> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
        let line = format!("{} {}", env!("CARGO_BIN_EXE_latchkey"), quoted.join(" "));
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(self.directory.path());
        script.env_clear().envs([
            ("HOME", self.at("home")),
            ("PATH", "/usr/bin:/bin".into()),
            ("TERM", "xterm".into()),
        ]);
        let script = script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().expect("`script`, of Debian's bsdutils");
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shown = Vec::new();
        while !String::from_utf8_lossy(&shown).contains(prompt) {
            let mut some = [0; 256];
            let count = output.read(&mut some).unwrap();
            assert_ne!(count, 0, "{}", String::from_utf8_lossy(&shown));
            shown.extend_from_slice(&some[..count]);
        }
        input.write_all(format!("{typed}\n").as_bytes()).unwrap();
        output.read_to_end(&mut shown).unwrap();
        (child.wait().unwrap().code().unwrap(), String::from_utf8(shown).unwrap())
    }

    /// The standard output of a command that must end with 0.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, "")
    }

    pub(crate) fn ok_with(&self, arguments: &[&str], input: &str) -> String {
        let ended = self.run_with(arguments, input);
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
        ended.stdout
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let stdout = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{arguments:?}: no JSON: {stdout}"))
    }

    /// Makes a key that never expires; returns its id and secret.
    pub(crate) fn key(&self, name: &str, more: &[&str]) -> (String, String) {
        let made = self.json(&[&["keys", "create", "-w", "acme", name, "--expires-in", "none"], more].concat());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made["key"]["id"]), text(&made["secret"]))
    }
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
