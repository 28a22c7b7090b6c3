//! The command line: one file per subcommand. stdout is data, everything else goes to stderr.
//!
//! Exit codes: 0 success, 1 the user's mistake or a failed run, 2 the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Config, ConfigError, Said};
use crate::store::{Durability, ErrorClass, StoreError};

mod alerts;
mod api;
mod backfill;
mod bench;
mod change;
mod check;
mod dags;
mod db;
mod door;
mod fmt;
mod home;
mod listen;
mod local;
#[cfg(all(feature = "data", feature = "ml"))]
mod models;
mod next;
mod progress;
mod run;
mod runs;
mod schema;
mod serve;
mod served;
mod sim;
mod table;
mod tasks;
mod worker;

/// Runs data pipelines from YAML files.
#[derive(Parser)]
#[command(name = "mainspring", version, about, propagate_version = true)]
struct CommandLine {
    #[command(flatten)]
    globals: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct GlobalArgs {
    /// Home folder: database, lake, logs, models, warehouse [default: .mainspring]
    #[arg(long, global = true, env = "MAINSPRING_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
    /// Folder of the DAG files [default: dags]
    #[arg(long, global = true, env = "MAINSPRING_DAGS", value_name = "DIR")]
    dags: Option<PathBuf>,
    /// Database of run state: sqlite://… or postgres://… [default: SQLite in the home]
    #[arg(long, global = true, env = "MAINSPRING_DATABASE", value_name = "URL", hide_env_values = true)]
    database: Option<String>,
    /// Settings file [default: mainspring.toml, if there is one]
    #[arg(long, global = true, env = "MAINSPRING_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Task attempts at once in this process [default: 16]
    #[arg(long, global = true, env = "MAINSPRING_SLOTS", value_name = "N")]
    slots: Option<u32>,
    /// `full` survives power loss; `relaxed` may forget the last moments after one (never after a crash)
    #[arg(long, global = true, env = "MAINSPRING_DURABILITY", default_value = "full")]
    durability: DurabilityArg,
    /// How results are written to stdout
    #[arg(long, short, global = true, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DurabilityArg {
    Full,
    Relaxed,
}

/// How results are written to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run DAGs once, now, without a server; exit 0 iff all succeeded
    Run(run::Run),
    /// Run DAGs on time until told to stop
    Serve(serve::Serve),
    /// Run tasks for a server elsewhere
    Worker(worker::Worker),
    /// Check DAG files; every problem at once
    Check(check::Check),
    /// Write DAG files in canonical form
    Fmt(fmt::Fmt),
    /// Print the JSON Schema of DAG files
    Schema(schema::Schema),
    /// List, show, pause and trigger DAGs
    #[command(subcommand)]
    Dags(dags::Dags),
    /// List and show runs
    #[command(subcommand)]
    Runs(runs::Runs),
    /// List, test and read tasks
    #[command(subcommand)]
    Tasks(tasks::Tasks),
    /// List problems and try alert routes out
    #[command(subcommand)]
    Alerts(alerts::Alerts),
    /// Look after models of clusterings
    #[cfg(all(feature = "data", feature = "ml"))]
    #[command(subcommand)]
    Models(models::Models),
    /// Look after the database of run state
    #[command(subcommand)]
    Db(db::Db),
    /// Measure speed through the real store and worker
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run the scheduler among faults, in simulated time
    Sim(sim::Sim),
}

/// What every subcommand is given.
pub struct Globals {
    /// The settings.
    pub config: Config,
    /// What a commit survives.
    pub durability: Durability,
    /// How results are written.
    pub output: Output,
    /// The environment of the process.
    pub environment: BTreeMap<String, String>,
}

/// Why a command failed, by who can mend it.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Said already, or a failed run: exit 1 without another word.
    #[error("")]
    Failed,
    /// The user's mistake: exit 1.
    #[error("{0}")]
    User(String),
    /// The environment: exit 2.
    #[error("{0}")]
    Environment(String),
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        match error.class() {
            ErrorClass::User => Self::User(error.to_string()),
            ErrorClass::Conflict | ErrorClass::Environment | ErrorClass::Bug => {
                Self::Environment(error.to_string())
            }
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::User(error.to_string())
    }
}

impl CliError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed | Self::User(_) => ExitCode::from(1),
            Self::Environment(_) => ExitCode::from(2),
        }
    }
}

/// Runs the command line of this process and answers its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let code = if error.use_stderr() { 1 } else { 0 };
            if error.print().is_err() {
                return ExitCode::from(2);
            }
            return ExitCode::from(code);
        }
    };
    start_log();
    match execute(line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.to_string();
            if !text.is_empty() {
                eprintln!("error: {text}");
            }
            error.exit_code()
        }
    }
}

/// Log lines of the process go to stderr; `MAINSPRING_LOG` chooses, as `RUST_LOG` does elsewhere.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MAINSPRING_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new(
            "warn,delta_kernel=error,deltalake_core=error,buoyant_kernel=error",
        )
    });
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}

fn execute(line: CommandLine) -> Result<(), CliError> {
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    let args = line.globals;
    let said = Said {
        home: args.home,
        dags: args.dags,
        database: args.database,
        config: args.config,
        slots: args.slots,
    };
    let globals = Globals {
        config: Config::gather(said)?,
        durability: match args.durability {
            DurabilityArg::Full => Durability::Full,
            DurabilityArg::Relaxed => Durability::Relaxed,
        },
        output: args.output,
        environment,
    };
    match line.command {
        Command::Check(args) => check::run(&args, &globals),
        Command::Fmt(args) => fmt::run(&args, &globals),
        Command::Schema(args) => schema::run(&args, &globals),
        Command::Dags(args) => dags::run(&args, &globals),
        Command::Sim(args) => sim::run(&args, &globals),
        Command::Run(args) => block_on(run::run(args, globals)),
        Command::Serve(args) => block_on(serve::run(args, globals)),
        Command::Worker(args) => block_on(worker::run(args, globals)),
        Command::Runs(args) => block_on(runs::run(args, globals)),
        Command::Tasks(args) => block_on(tasks::run(args, globals)),
        Command::Alerts(args) => block_on(alerts::run(args, globals)),
        #[cfg(all(feature = "data", feature = "ml"))]
        Command::Models(args) => block_on(models::run(args, globals)),
        Command::Db(args) => block_on(db::run(args, globals)),
        Command::Bench(args) => block_on(bench::run(args, globals)),
    }
}

fn block_on(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(4 << 20)
        .build()
        .map_err(|e| CliError::Environment(format!("the asynchronous runtime cannot start: {e}")))?;
    let result = runtime.block_on(work);
    // A blocking task (a clustering that was cancelled) must not hold the process back.
    runtime.shutdown_background();
    result
}

/// Writes a line of data to stdout. A reader that has gone away (`| head`) is no error.
fn print_line(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").is_err() {
        tracing::debug!("stdout is closed");
    }
}

fn print_json(value: &impl serde::Serialize) {
    print_line(&serde_json::to_string_pretty(value).expect("plain values can be written as JSON"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }
}
