//! Shell lines that documents and scripts print for people to paste.

use std::process::Command;

/// Runs a printed line in a shell, in another folder; returns status and code, such as `401 missing-key`, and the whole
/// answer.
pub fn run_in_shell(line: &str) -> (String, String) {
    let elsewhere = std::env::temp_dir();
    let output = Command::new("sh").arg("-c").arg(line).current_dir(elsewhere).output().expect("sh");
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let code = answer.lines().find_map(|line| line.strip_prefix("latchkey-code: ")).unwrap_or_default();
    (format!("{status} {}", code.trim()).trim().to_owned(), answer)
}
