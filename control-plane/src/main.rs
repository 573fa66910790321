//! The `latchkey` binary: runs the command line and tells a failure in one line.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match latchkey::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is gone.
            let _ = writeln!(std::io::stderr(), "latchkey: {error:#}");
            ExitCode::FAILURE
        }
    }
}
