//! `serve`: scheduler, reaper, courier and worker in one process, and the door for everybody else.

use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{CliError, Globals, home, listen, local};
use crate::control::{self, Scope};
use crate::engine::retention;
use crate::engine::scheduler::{self, Scheduler};
use crate::{engine, worker};

/// Run DAGs on time until told to stop.
#[derive(Args)]
pub(super) struct Serve {
    #[command(flatten)]
    api: listen::Listen,
    /// Run no tasks in this process: leave them to workers elsewhere
    #[arg(long)]
    no_worker: bool,
}

/// How often a database that others write to is looked at; one that is ours alone is looked at less often,
/// because nothing happens to it that we do not know.
const POLL_SHARED: Duration = Duration::from_secs(1);
const POLL_OWN: Duration = Duration::from_secs(15);

pub(super) async fn run(args: Serve, globals: Globals) -> Result<(), CliError> {
    let store = home::open_store(&globals).await?;
    let door = args.api.open(&globals).await?;
    store.migrate().await?;
    for (pool, slots) in home::pools(&globals)? {
        store.set_pool(&pool, slots).await?;
    }
    let poll_every = if store.is_shared() { POLL_SHARED } else { POLL_OWN };
    let scheduler = Scheduler::default();
    let (control, driver) = control::start(store.clone(), driving(poll_every, scheduler.clone()));
    let local = if args.no_worker {
        None
    } else {
        let worker = worker::Settings {
            shared: home::shared(&globals, globals.config.dags.clone())?,
            logs: globals.config.logs(),
            now: engine::now,
            trace: None,
        };
        Some(local::start(&control, worker, globals.config.slots).await?)
    };
    let stop = CancellationToken::new();
    let settings = scheduler::Settings { now: engine::now, poll_every, folder: globals.config.dags.clone() };
    let scheduling = tokio::spawn(scheduler.clone().run(control.clone(), settings, stop.clone()));
    let routes = std::sync::Arc::new(super::alerts::routes(&globals)?);
    let told = CancellationToken::new();
    let courier = tokio::spawn(engine::courier::run(store.clone(), routes, engine::now, told.clone()));
    let pruning = globals.config.keep_runs.map(|keep| {
        let logs = globals.config.logs();
        tokio::spawn(retention::run(store.clone(), logs, keep, engine::now, stop.clone()))
    });
    let (url, database) = (door.url().to_owned(), home::shown(&globals));
    let api = door.start(&globals, control.clone(), scheduler, stop.clone())?;
    eprintln!("mainspring serves {} at {url} (database {database})", globals.config.dags.display());
    until_told().await;
    eprintln!("draining: running tasks may end; once more stops at once");
    stop.cancel();
    let drained = async {
        if let Some(local) = local {
            local.stop().await;
        }
        if let Err(error) = scheduling.await {
            tracing::warn!(%error, "the scheduler ended badly");
        }
        if let Some(pruning) = pruning
            && let Err(error) = pruning.await
        {
            tracing::warn!(%error, "retention ended badly");
        }
        api.stop().await;
    };
    tokio::select! {
        () = drained => {}
        () = until_told() => {
            eprintln!("stopped at once; what was running is repeated when a server starts again");
            std::process::exit(1);
        }
    }
    told.cancel();
    if let Err(error) = courier.await {
        tracing::warn!(%error, "the courier ended badly");
    }
    drop(control);
    driver.await.map_err(|e| CliError::Environment(format!("the driver of runs stopped: {e}")))??;
    store.close().await;
    Ok(())
}

/// How runs are driven: every one there is, without end, and `scheduler` is told when data is new.
fn driving(poll_every: Duration, scheduler: Scheduler) -> control::Settings {
    let watch: control::Watch = Box::new(move |_dag, _run, decision, _at| {
        if !decision.published.is_empty() {
            scheduler.wake();
        }
    });
    control::Settings { now: engine::now, scope: Scope::All, poll_every, tries_max: None, watch: Some(watch) }
}

/// Waits for Ctrl-C or SIGTERM.
pub(super) async fn until_told() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        drop(tokio::signal::ctrl_c().await);
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
