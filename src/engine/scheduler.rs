//! Creates the runs that schedules ask for, on time, and takes up DAG files as they change.
//!
//! Any number of schedulers may work on one database: a schedule moves on by a write that is refused if another
//! was faster, and an instant has one run whoever creates it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::files::{DagFiles, Reloaded};
use super::{news, watchdog};
use crate::control::Control;
use crate::core::alert::{AlertEvent, Trouble};
use crate::core::dag::Overlap;
use crate::core::ids::{DagHash, DagId, RunId, RunKey, Timestamp};
use crate::core::run::{Input, RunBirth, RunType};
use crate::core::timetable::{Fire, Skipped};
use crate::dagbag::{self, DagFile};
use crate::store::{DagRow, Firing, SkippedInstants, StoreError};

/// Runs that one write creates.
pub(super) const FIRES_MAX: usize = 100;
/// DAGs that one look brings.
const DAGS_MAX: u32 = 200;
/// How often the folder of DAG files is looked at.
const FILES_EVERY: Duration = Duration::from_secs(2);
/// How soon to try again what did not succeed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often the watchdog looks.
const WATCH_EVERY: Duration = Duration::from_secs(10);
/// A loop that is late by this much says so.
const LAG_MAX: Duration = Duration::from_secs(5);
/// How soon events are looked at again that wait because a run is not to be created beside another.
const OVERLAP_AGAIN: Duration = Duration::from_secs(1);
/// A schedule that is late by this much is stalled.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// What is fixed while the process lives.
pub struct Settings {
    /// Reads the clock.
    pub now: fn() -> Timestamp,
    /// How often the database is looked at for what others changed.
    pub poll_every: Duration,
    /// The folder of the DAG files.
    pub folder: std::path::PathBuf,
}

/// What the scheduler shows to those who ask how it is.
#[derive(Debug, Default, Clone)]
pub struct Health {
    /// When its loop last came round.
    pub last_round: Option<Timestamp>,
    /// By how much the loop was late then.
    pub lag: Duration,
    /// Why the database could not be used in the last round.
    pub trouble: Option<String>,
    /// What is wrong with DAG files.
    pub import_errors: Vec<String>,
    /// DAGs in the files.
    pub dags: usize,
}

/// A handle to the scheduler of this process.
#[derive(Clone, Default)]
pub struct Scheduler {
    health: Arc<Mutex<Health>>,
    wake: Arc<Notify>,
}

struct Loop {
    control: Control,
    settings: Settings,
    handle: Scheduler,
    files: DagFiles,
    /// Versions by their hash, as far as they came from a file or were asked for.
    versions: BTreeMap<DagHash, Arc<DagFile>>,
    /// The newest version of every DAG that has a file.
    present: BTreeMap<DagId, Arc<DagFile>>,
    look_at_files: Timestamp,
    look_at_dags: Timestamp,
    /// What the clock showed when it was last read.
    newest: Timestamp,
    watch: Timestamp,
    /// Schedules that were found to be late, until they fire.
    stalled: BTreeSet<DagId>,
    began: Timestamp,
}

impl Scheduler {
    /// How it is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.lock().expect("nothing panics while the health is held").clone()
    }

    /// Has it look at once: a DAG was let go on, or an event came.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Works until `stop`. It outlives outages of the database, and says so in [`Scheduler::health`].
    pub async fn run(self, control: Control, settings: Settings, stop: CancellationToken) {
        let files = DagFiles::new(settings.folder.clone());
        let mut work = Loop {
            control,
            handle: self.clone(),
            files,
            versions: BTreeMap::new(),
            present: BTreeMap::new(),
            look_at_files: Timestamp(i64::MIN),
            look_at_dags: Timestamp(i64::MIN),
            newest: Timestamp(i64::MIN),
            watch: (settings.now)().plus(WATCH_EVERY),
            stalled: BTreeSet::new(),
            began: (settings.now)(),
            settings,
        };
        let mut wait = Duration::ZERO;
        let mut due = (work.settings.now)();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.wake.notified() => work.look_at_dags = Timestamp(i64::MIN),
                // The timer is the event that is waited for.
                _ = tokio::time::timeout(wait, std::future::pending::<()>()) => {}
            }
            let now = (work.settings.now)();
            work.forgive_clock(now);
            let lag = now.since(due);
            if lag > LAG_MAX {
                tracing::warn!(lag_ms = lag.as_millis(), "the scheduler was late");
            }
            let rounds = work.round(now).await;
            let mut health = self.health.lock().expect("nothing panics while the health is held");
            (health.last_round, health.lag) = (Some(now), lag);
            (wait, health.trouble) = match rounds {
                // A clock that is set back within the round makes it longer than it was meant to be.
                Ok(wait) => (wait.min(FILES_EVERY), None),
                Err(error) => {
                    tracing::warn!(%error, "schedules cannot be looked at; trying again");
                    (AGAIN_AFTER, Some(error.to_string()))
                }
            };
            due = now.plus(wait);
        }
    }
}

impl Loop {
    /// A clock that was set back would have everything wait until it shows again what it showed: it is looked at now.
    fn forgive_clock(&mut self, now: Timestamp) {
        if now < self.newest {
            tracing::warn!(from = %self.newest, to = %now, "the clock was set back");
            (self.look_at_files, self.look_at_dags, self.watch) = (now, now, now.plus(WATCH_EVERY));
        }
        self.newest = now;
    }

    /// One round; answers how long to wait for the next.
    async fn round(&mut self, now: Timestamp) -> Result<Duration, StoreError> {
        if now >= self.look_at_files {
            if self.take_up_files(now).await? {
                self.look_at_dags = now;
            }
            self.look_at_files = now.plus(FILES_EVERY);
        }
        if now >= self.watch {
            let broken = self.files.problems().map(|problem| problem.file.clone()).collect();
            watchdog::look(&self.control, &self.present, &broken, now).await?;
            self.watch = now.plus(WATCH_EVERY);
        }
        if now >= self.look_at_dags {
            self.look_at_dags = self.fire_due(now).await?;
        }
        let next = self.look_at_dags.min(self.look_at_files).min(self.watch);
        Ok(next.since((self.settings.now)()))
    }

    /// Moves on every schedule that is due; answers when to look again.
    async fn fire_due(&mut self, now: Timestamp) -> Result<Timestamp, StoreError> {
        let rows = self.control.store().due_dags(now, DAGS_MAX).await?;
        let mut more = rows.len() == DAGS_MAX as usize;
        for row in rows {
            more |= self.fire(&row, now).await?;
        }
        if more {
            return Ok(now);
        }
        let (soon, poll) = (now.plus(AGAIN_AFTER), now.plus(self.settings.poll_every));
        // What is still due could not be moved on, as one whose version cannot be read: it must not be all we do.
        let next = self.control.store().next_fire().await?.map(|at| if at > now { at } else { soon });
        Ok(next.map_or(poll, |at| at.min(poll)))
    }

    /// True if anything about DAGs has changed.
    async fn take_up_files(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let Reloaded { changed, lost, broken, mended } = self.files.reload();
        let store = self.control.store().clone();
        let mut events = Vec::new();
        for (path, why) in broken {
            tracing::warn!(file = %path.display(), why, "a DAG file cannot be used; its last good version stays");
            let trouble = Trouble::ImportError { file: path.to_string_lossy().into() };
            events.push(AlertEvent::Raised { trouble, error: why.into(), routes: Vec::new() });
        }
        for path in mended {
            let trouble = Trouble::ImportError { file: path.to_string_lossy().into() };
            events.push(AlertEvent::Over { trouble });
        }
        if !events.is_empty() {
            store.raise(&events, now).await?;
        }
        let any = !changed.is_empty() || !lost.is_empty();
        for file in changed {
            if store.put_dag(&file.dag, &file.source, now).await? {
                tracing::info!(dag = %file.dag.id, "the DAG is taken up");
            }
            let file = Arc::new(file);
            self.present.insert(file.dag.id.clone(), file.clone());
            self.versions.insert(file.dag.hash.clone(), file);
        }
        for dag_id in lost {
            tracing::warn!(dag = %dag_id, "the DAG has no file any more: it fires no more, its runs go on");
            store.lose_dag(&dag_id).await?;
            self.present.remove(&dag_id);
        }
        let mut health = self.handle.health.lock().expect("nothing panics while the health is held");
        health.dags = self.present.len();
        health.import_errors = self.files.problems().map(ToString::to_string).collect();
        Ok(any)
    }

    /// The DAG as its row says: another scheduler may have taken up a newer file than this one has.
    async fn version(&mut self, row: &DagRow) -> Result<Option<Arc<DagFile>>, StoreError> {
        if let Some(file) = self.versions.get(&row.dag_hash) {
            return Ok(Some(file.clone()));
        }
        let Some((_, source)) = self.control.store().dag_version(&row.dag_hash).await? else {
            return Ok(None);
        };
        match dagbag::file_from_source(&source) {
            Ok(file) => {
                let file = Arc::new(file);
                self.versions.insert(row.dag_hash.clone(), file.clone());
                Ok(Some(file))
            }
            Err(problems) => {
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                tracing::error!(dag = %row.dag_id, why = first, "the stored version cannot be read");
                Ok(None)
            }
        }
    }

    /// Moves the schedule of one DAG on. True if more is due than one write takes.
    async fn fire(&mut self, row: &DagRow, now: Timestamp) -> Result<bool, StoreError> {
        let Some(file) = self.version(row).await? else { return Ok(false) };
        self.watch(row, &file, now).await?;
        if self.gives_up(&file, now).await? {
            return Ok(false);
        }
        let mut firing = if file.schedule().follows_news() {
            news::firing(self.control.store(), row, &file, now).await?
        } else {
            by_the_clock(row, &file, now)
        };
        self.overlap(&file, &mut firing, now).await?;
        match self.control.store().fire(row, &file.dag, &firing, now).await {
            Ok(created) => {
                for birth in created {
                    tracing::info!(dag = %row.dag_id, run = %birth.key.run_id, "a scheduled run was created");
                    self.control.wake(birth.key).await;
                }
                if self.stalled.remove(&row.dag_id) {
                    let trouble = Trouble::ScheduleStalled { dag_id: row.dag_id.clone() };
                    self.control.store().raise(&[AlertEvent::Over { trouble }], now).await?;
                }
                Ok(firing.next_fire.is_some_and(|next| next <= now))
            }
            // Another scheduler was faster, or the file was changed: the next look tells.
            Err(StoreError::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// After so many failed runs one after the other a DAG is paused, if its author said so.
    async fn gives_up(&self, file: &DagFile, now: Timestamp) -> Result<bool, StoreError> {
        let (dag_id, max) = (&file.dag.id, file.dag.settings.max_consecutive_failed_dag_runs);
        let store = self.control.store();
        if max == 0 || store.failed_in_a_row(dag_id, max).await? < max {
            return Ok(false);
        }
        tracing::error!(dag = %dag_id, max, "so many runs failed one after the other: the DAG is paused");
        store.set_paused(dag_id, true, now).await?;
        Ok(true)
    }

    /// `overlap: skip` creates no run beside an unfinished one, `replace` ends the unfinished ones. Events of a run
    /// that is left out wait for the next one.
    async fn overlap(&self, file: &DagFile, firing: &mut Firing, now: Timestamp) -> Result<(), StoreError> {
        let settings = &file.dag.settings;
        if settings.overlap == Overlap::Queue || firing.births.is_empty() {
            return Ok(());
        }
        let runs = self.control.store().unfinished_of(&file.dag.id).await?;
        match settings.overlap {
            Overlap::Queue => {}
            Overlap::Skip => {
                let room = (settings.max_active_runs as usize).saturating_sub(runs.len());
                for left_out in firing.births.split_off(room.min(firing.births.len())) {
                    if firing.events.remove(&left_out.key.run_id).is_some() && !file.schedule().has_clock() {
                        firing.next_fire = Some(now.plus(OVERLAP_AGAIN));
                        continue;
                    }
                    firing.skipped.push(SkippedInstants {
                        from: left_out.logical_date,
                        to: left_out.logical_date,
                        instants: Some(1),
                        why: "overlap".to_owned(),
                    });
                }
            }
            Overlap::Replace => {
                let keep = settings.max_active_runs as usize - 1;
                let over = (runs.len() + firing.births.len()).saturating_sub(keep + 1);
                for run in runs.into_iter().take(over) {
                    let key = run.birth.key;
                    if let Err(refused) = self.control.apply(key.clone(), Input::Cancel).await {
                        tracing::info!(run = %key.run_id, %refused, "the run is not replaced");
                    }
                }
            }
        }
        Ok(())
    }

    /// Raises an alert if the schedule should have fired long ago while this process was there to see it.
    async fn watch(&mut self, row: &DagRow, file: &DagFile, now: Timestamp) -> Result<(), StoreError> {
        let Some(expected) = row.next_fire.filter(|_| row.cursor.is_some()) else { return Ok(()) };
        let late = now.since(expected.max(self.began));
        if late < STALLED_AFTER || !self.stalled.insert(row.dag_id.clone()) {
            return Ok(());
        }
        let trouble = Trouble::ScheduleStalled { dag_id: row.dag_id.clone() };
        let error = format!("the fire of {expected} is {} s late", late.as_secs()).into();
        let raised = AlertEvent::Raised { trouble, error, routes: file.dag.settings.alerts.clone() };
        self.control.store().raise(&[raised], now).await
    }
}

fn by_the_clock(row: &DagRow, file: &DagFile, now: Timestamp) -> Firing {
    let due = file.schedule().due(row.cursor, row.first_seen, now, FIRES_MAX);
    Firing {
        births: due.fires.iter().map(|fire| birth(file, fire, now)).collect(),
        skipped: due.skipped.iter().map(skipped_row).collect(),
        cursor: due.cursor,
        next_fire: due.next,
        ..Firing::default()
    }
}

fn skipped_row(skipped: &Skipped) -> SkippedInstants {
    SkippedInstants {
        from: skipped.from,
        to: skipped.to,
        instants: skipped.count.and_then(|count| u32::try_from(count).ok()),
        why: skipped.why.to_string(),
    }
}

pub(super) fn birth(file: &DagFile, fire: &Fire, now: Timestamp) -> RunBirth {
    let params = file.resolve_params(&serde_json::Map::new()).unwrap_or_default();
    let run_id = RunId::parse(&format!("scheduled__{}", fire.logical_date)).expect("a time makes a valid id");
    RunBirth {
        key: RunKey { dag_id: file.dag.id.clone(), run_id },
        dag_hash: file.dag.hash.clone(),
        run_type: RunType::Scheduled,
        logical_date: fire.logical_date,
        data_interval_start: fire.data_interval_start,
        data_interval_end: fire.data_interval_end,
        params: if params.is_empty() {
            "".into()
        } else {
            serde_json::Value::Object(params).to_string().into()
        },
        queued_at: now,
    }
}
