//! Parses arguments, runs, turns the class of an error into an exit code.

fn main() -> std::process::ExitCode {
    mainspring::cli::main()
}
