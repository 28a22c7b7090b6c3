//! `worker`: takes tasks from a server elsewhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{CliError, Globals, api, home, serve};
use crate::core::dag::DEFAULT_QUEUE;
use crate::core::ids::QueueName;
use crate::engine;
use crate::worker;
use crate::worker::remote::{self, Remote, RemoteError};

/// Run tasks for a server elsewhere until told to stop.
#[derive(Args)]
pub(super) struct Worker {
    /// Address of a server; repeat it for more servers on the same database [default: the server of this home]
    #[arg(long = "server", value_name = "URL", env = "MAINSPRING_SERVER")]
    servers: Vec<String>,
    /// File with the token to show: that of the servers, or one with a secret alone [default: the server of this home]
    #[arg(long, value_name = "FILE", env = "MAINSPRING_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Serve this queue; repeat it for more
    #[arg(long = "queue", value_name = "QUEUE", default_value = DEFAULT_QUEUE)]
    queues: Vec<String>,
    /// Seconds that tasks may go on once the worker is told to stop; then they are given back
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    grace: u64,
    /// What people call this worker [default: the name of the machine]
    #[arg(long)]
    name: Option<String>,
}

pub(super) async fn run(args: Worker, globals: Globals) -> Result<(), CliError> {
    let queues: Result<Vec<QueueName>, _> = args.queues.iter().map(|queue| QueueName::parse(queue)).collect();
    let queues = queues.map_err(|error| CliError::User(error.to_string()))?;
    let folder = globals.config.home.clone();
    let servers = if args.servers.is_empty() {
        let found = api::of_home(&folder).map_err(|why| {
            CliError::User(format!("{why}\nhint: say where the server is with --server http://host:8080"))
        })?;
        vec![found.url]
    } else {
        args.servers
    };
    let token_file = args.token_file;
    let token = move || match &token_file {
        Some(path) => token_of(path),
        None => api::of_home(&folder)
            .map(|found| found.token)
            .map_err(|why| format!("{why}\nhint: say where the token is with --token-file")),
    };
    let spool = globals.config.home.join("worker").join(uuid::Uuid::new_v4().simple().to_string());
    let settings = worker::Settings {
        shared: home::shared(&globals, globals.config.dags.clone())?,
        logs: spool.clone(),
        now: engine::now,
        trace: None,
    };
    let drain = CancellationToken::new();
    let remote = Remote {
        name: args.name.unwrap_or_else(machine),
        token: Box::new(token),
        queues,
        slots: globals.config.slots,
        grace: Duration::from_secs(args.grace),
        drain: drain.clone(),
        servers,
    };
    let told = tokio::spawn(async move {
        serve::until_told().await;
        eprintln!("draining: running tasks may end; once more stops at once");
        drain.cancel();
        serve::until_told().await;
        eprintln!("stopped at once; what was running is repeated elsewhere");
        std::process::exit(1);
    });
    eprintln!("mainspring works for {}", remote.servers.join(", "));
    let ended = remote::run(settings, remote).await;
    told.abort();
    // What was carried is gone from here already; logs that nobody took stay.
    if std::fs::remove_dir_all(&spool).is_err() {
        tracing::debug!(spool = %spool.display(), "nothing was spooled");
    }
    ended.map_err(|RemoteError::Refused(why)| CliError::User(format!("no server takes this worker: {why}")))
}

/// The first secret of a token file that a worker may show: one of a worker, or else any.
fn token_of(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the token file {} cannot be read: {error}", path.display()))?;
    if let Ok(found) = serde_json::from_str::<api::Found>(&text) {
        return Ok(found.token);
    }
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    let lines: Vec<Vec<&str>> =
        lines.map(Iterator::collect).filter(|words: &Vec<_>| !words.is_empty()).collect();
    let of_worker = lines.iter().find(|words| words[0] == "worker").or_else(|| lines.first());
    let secret = of_worker.map(|words| if words.len() > 1 { words[1] } else { words[0] });
    secret.map(ToOwned::to_owned).ok_or_else(|| format!("there is no secret in {}", path.display()))
}

fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
