//! `bench`: named workloads through the real store and worker of this process; one JSON object a workload.
//!
//! `raw_commits_per_second` is what the same disk does at the same moment with one-row transactions, and
//! `commits_ratio` how close the workload came to it: hand-offs cannot be faster than the disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CliError, Globals, local, print_line};
use crate::control::{self, Scope};
use crate::core::dag::{Because, Dag, DagSettings, Edge, Task};
use crate::core::ids::{DagHash, DagId, RunId, RunKey, TaskId};
use crate::core::run::{RunBirth, RunType};
use crate::core::state::RunState;
use crate::store::{Created, Durability, Store};
use crate::{engine, worker};
use clap::{Args, Subcommand};
use serde::Serialize;

#[cfg(feature = "ml")]
mod numerics;
mod parse;
mod trace;

use trace::Recorder;

/// Measure speed through the real store and worker.
#[derive(Subcommand)]
pub(super) enum Bench {
    /// N tasks, each after the one before
    Chain(Size),
    /// N tasks side by side
    Wide(Size),
    /// Layers of WIDTH tasks, each after all of the layer before
    Layers {
        /// Layers
        #[arg(long, default_value_t = 20)]
        layers: usize,
        /// Tasks in each
        #[arg(long, default_value_t = 50)]
        width: usize,
    },
    /// Independent chains in one run
    Chains {
        /// Chains
        #[arg(long, default_value_t = 100)]
        chains: usize,
        /// Tasks in each
        #[arg(long, default_value_t = 100)]
        length: usize,
    },
    /// N times the program `true`, side by side
    Subprocess(Size),
    /// Read N DAG files of five tasks
    Parse {
        /// Files
        #[arg(long, default_value_t = 10_000)]
        files: usize,
    },
    /// Lloyd's iterations of k-means from given centres
    #[cfg(feature = "ml")]
    Kmeans(numerics::KMeansArgs),
    /// One k-means fit from k-means++
    #[cfg(feature = "ml")]
    KmeansFit(numerics::Shape),
    /// The silhouette of every row
    #[cfg(feature = "ml")]
    Silhouette(numerics::Shape),
    /// The tree of a hierarchical clustering
    #[cfg(feature = "ml")]
    Hierarchical {
        #[command(flatten)]
        shape: numerics::Shape,
        /// How far two groups are apart
        #[arg(long, value_enum, default_value = "ward")]
        linkage: numerics::LinkageName,
    },
    /// Dense regions
    #[cfg(feature = "ml")]
    Dbscan(numerics::DbscanArgs),
    /// A whole segmentation in memory: preparation, k from 3 to 10, fit, names, assignments, figures
    #[cfg(feature = "ml")]
    Cluster(numerics::Shape),
}

/// How many tasks.
#[derive(Args)]
pub(super) struct Size {
    /// Tasks
    #[arg(long, short)]
    n: usize,
}

#[derive(Serialize)]
struct Figures {
    workload: String,
    tasks: usize,
    seconds: f64,
    tasks_per_second: f64,
    handoff_p50_ms: Option<f64>,
    handoff_p99_ms: Option<f64>,
    commits: i64,
    rss_mib: f64,
    durability: &'static str,
    raw_commits_per_second: f64,
    commits_ratio: f64,
}

/// Commits of the raw rate that a workload is compared with.
const RAW_COMMITS: u32 = 200;

pub(super) async fn run(command: Bench, globals: Globals) -> Result<(), CliError> {
    let (name, dag) = match command {
        Bench::Chain(Size { n }) => (format!("chain --n {n}"), chains(1, n)),
        Bench::Wide(Size { n }) => (format!("wide --n {n}"), chains(n, 1)),
        Bench::Layers { layers, width } => {
            (format!("layers --layers {layers} --width {width}"), layered(layers, width))
        }
        Bench::Chains { chains: count, length } => {
            (format!("chains --chains {count} --length {length}"), chains(count, length))
        }
        Bench::Subprocess(Size { n }) => (format!("subprocess --n {n}"), subprocesses(n)),
        Bench::Parse { files } => return parse::run(files),
        #[cfg(feature = "ml")]
        Bench::Kmeans(args) => return numerics::kmeans_lloyd(&args),
        #[cfg(feature = "ml")]
        Bench::KmeansFit(shape) => return numerics::kmeans_fit(&shape),
        #[cfg(feature = "ml")]
        Bench::Silhouette(shape) => return numerics::silhouette(&shape),
        #[cfg(feature = "ml")]
        Bench::Hierarchical { shape, linkage } => return numerics::hierarchical(&shape, linkage),
        #[cfg(feature = "ml")]
        Bench::Dbscan(args) => return numerics::density(&args),
        #[cfg(feature = "ml")]
        Bench::Cluster(shape) => return numerics::whole(&shape),
    };
    let figures = measure(name, dag, &globals).await?;
    print_line(&serde_json::to_string(&figures).expect("plain figures can be written as JSON"));
    Ok(())
}

async fn measure(workload: String, dag: Dag, globals: &Globals) -> Result<Figures, CliError> {
    let home = scratch_home(globals)?;
    let slots = match workload.split(' ').next() {
        Some("subprocess") => {
            std::thread::available_parallelism().map_or(2, |n| u32::try_from(n.get()).unwrap_or(2))
        }
        _ => u32::try_from(dag.tasks().len()).unwrap_or(u32::MAX).min(globals.config.slots.max(1024)),
    };
    let url = format!("sqlite://{}", home.join("mainspring.db").display());
    let url =
        if globals.config.database.starts_with("postgres") { globals.config.database.clone() } else { url };
    let store = Store::open(&url, globals.durability).await?;
    let raw = crate::store::bench::raw_commits(&home, RAW_COMMITS, globals.durability).await?;
    let recorder = Arc::new(Recorder::default());
    let tasks = dag.tasks().len();
    let (seconds, commits) = drive(&store, dag, slots, globals, home.clone(), recorder.clone()).await?;
    let handoffs = recorder.handoffs_ms();
    store.close().await;
    std::fs::remove_dir_all(&home)
        .map_err(|e| CliError::Environment(format!("{} cannot be removed: {e}", home.display())))?;
    Ok(Figures {
        workload,
        tasks,
        seconds,
        tasks_per_second: tasks as f64 / seconds,
        handoff_p50_ms: trace::quantile(&handoffs, 0.50),
        handoff_p99_ms: trace::quantile(&handoffs, 0.99),
        commits,
        rss_mib: rss_mib(),
        durability: match globals.durability {
            Durability::Full => "full",
            Durability::Relaxed => "relaxed",
        },
        raw_commits_per_second: raw,
        commits_ratio: commits as f64 / seconds / raw,
    })
}

/// A home of its own beside the configured one, so that the same disk is measured.
fn scratch_home(globals: &Globals) -> Result<PathBuf, CliError> {
    let home = globals.config.home.join(format!("bench-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(&home)
        .map_err(|e| CliError::Environment(format!("{} cannot be created: {e}", home.display())))?;
    Ok(home)
}

async fn drive(
    store: &Store,
    dag: Dag,
    slots: u32,
    globals: &Globals,
    home: PathBuf,
    recorder: Arc<Recorder>,
) -> Result<(f64, i64), CliError> {
    let settings = control::Settings {
        now: engine::now,
        scope: Scope::Own { pools: BTreeMap::new() },
        poll_every: Duration::from_secs(1),
        tries_max: Some(1),
        watch: None,
    };
    let worker_settings = worker::Settings {
        shared: super::home::shared(globals, home.clone())?,
        logs: home.join("logs"),
        now: engine::now,
        trace: Some(Box::new(move |assignment, began, ended| recorder.record(assignment, began, ended))),
    };
    let (control, driver) = control::start(store.clone(), settings);
    let worker = local::start(&control, worker_settings, slots).await?;
    let birth = birth(&dag);
    store.put_dag_version(&dag.hash, &dag.id, "{}").await?;
    let dag = Arc::new(dag);
    let began = Instant::now();
    let Created::New(_) = control.create(&birth, &dag).await? else {
        return Err(CliError::Environment("a run of a random name exists already".to_owned()));
    };
    let state = control.follow(birth.key.clone()).await.await.ok();
    let seconds = began.elapsed().as_secs_f64();
    worker.stop().await;
    drop(control);
    driver.await.map_err(|e| CliError::Environment(format!("the driver of runs stopped: {e}")))??;
    if state != Some(RunState::Success) {
        return Err(CliError::Environment(format!("the workload ended as {state:?}, not success")));
    }
    let commits = store.run_summary(&birth.key).await?.map_or(0, |run| run.version);
    Ok((seconds, commits))
}

fn birth(dag: &Dag) -> RunBirth {
    let now = engine::now();
    RunBirth {
        key: RunKey {
            dag_id: dag.id.clone(),
            run_id: RunId::parse(&format!("bench__{}", uuid::Uuid::new_v4().simple()))
                .expect("letters and digits make a valid id"),
        },
        dag_hash: dag.hash.clone(),
        run_type: RunType::Manual,
        logical_date: now,
        data_interval_start: now,
        data_interval_end: now,
        params: "".into(),
        queued_at: now,
    }
}

fn dag_of(tasks: Vec<Task>, edges: Vec<Edge>) -> Dag {
    let settings = DagSettings { max_active_tasks: u32::MAX, ..DagSettings::default() };
    let id = DagId::parse("bench").expect("the constant is a valid name");
    Dag::new(id, DagHash("bench".into()), settings, tasks, edges).expect("the workloads have no cycles")
}

fn task(name: String, kind: &str, spec: &str) -> Task {
    let id = TaskId::parse(&name).expect("the workloads' names are valid");
    Task { spec: spec.into(), ..Task::new(id, kind) }
}

fn after(upstream: usize, downstream: usize) -> Edge {
    Edge { upstream, downstream, because: Because::Declared }
}

fn chains(count: usize, length: usize) -> Dag {
    let tasks = (0..count * length).map(|i| task(format!("t{i}"), "noop", "{}")).collect();
    let edges = (0..count * length).filter(|i| i % length != 0).map(|i| after(i - 1, i)).collect();
    dag_of(tasks, edges)
}

fn layered(layers: usize, width: usize) -> Dag {
    let tasks = (0..layers * width).map(|i| task(format!("t{i}"), "noop", "{}")).collect();
    let edges = (width..layers * width)
        .flat_map(|i| {
            let above = (i / width - 1) * width;
            (above..above + width).map(move |up| after(up, i))
        })
        .collect();
    dag_of(tasks, edges)
}

fn subprocesses(n: usize) -> Dag {
    let tasks = (0..n).map(|i| task(format!("t{i}"), "bash", r#"{"command":["true"]}"#)).collect();
    dag_of(tasks, Vec::new())
}

/// The memory this process has in use, in MiB; 0 where the system does not say.
fn rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
