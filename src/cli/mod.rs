//! The command line: one file per subcommand. stdout is data, everything else goes to stderr.

/// Runs the command line of this process and answers its exit code.
#[must_use]
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
