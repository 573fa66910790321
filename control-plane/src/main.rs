//! The `latchkey` binary: runs the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    latchkey::cli::run()
}
