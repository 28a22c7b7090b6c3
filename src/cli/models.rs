//! `mainspring models list | show | diff | promote`: which version of a model is served, how it came to be,
//! what two versions differ in, and the way past the gate.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{CliError, Globals, Output, home, print_json, print_line, table};
use crate::data::lake::WriteKey;
use crate::data::models::{self, Event, History, Record};
use crate::data::{DataError, DatasetName, served};
use crate::segment::Model;

/// How many records `show` prints on a terminal.
const RECORDS_SHOWN: usize = 20;

/// Look after models of clusterings
#[derive(Subcommand)]
pub(super) enum Models {
    /// List models and what is served of each
    List,
    /// Show a version: its segments, its figures, its history
    Show {
        /// The model
        #[arg(value_name = "MODEL")]
        model: String,
        /// The version [default: the one served, or else the newest]
        #[arg(id = "model_version", value_name = "VERSION")]
        version: Option<String>,
    },
    /// Compare two versions: figures, segments, preparation
    Diff {
        /// The model
        #[arg(value_name = "MODEL")]
        model: String,
        /// The old version [default: the one served]
        #[arg(value_name = "OLD")]
        old: Option<String>,
        /// The new version [default: the newest candidate]
        #[arg(value_name = "NEW")]
        new: Option<String>,
    },
    /// Have a version served, whatever its gate said; the model's history keeps who and why
    Promote {
        /// The model
        #[arg(value_name = "MODEL")]
        model: String,
        /// The version
        #[arg(id = "model_version", value_name = "VERSION")]
        version: String,
        /// Why, for those who read the history
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

pub(super) async fn run(command: Models, globals: Globals) -> Result<(), CliError> {
    let home = globals.config.home.clone();
    match command {
        Models::List => list(&home, globals.output),
        Models::Show { model, version } => {
            let known = Known::of(&home, &model)?;
            let version = match version {
                Some(version) => version,
                None => known.usual()?,
            };
            known.show(&home, &version, globals.output)
        }
        Models::Diff { model, old, new } => {
            let known = Known::of(&home, &model)?;
            let old = match old {
                Some(old) => old,
                None => known.served()?,
            };
            let new = match new {
                Some(new) => new,
                None => known.newest()?,
            };
            known.diff(&home, &old, &new, globals.output)
        }
        Models::Promote { model, version, reason } => promote(&globals, &model, &version, &reason).await,
    }
}

impl From<DataError> for CliError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Retryable(text) => Self::Environment(text),
            DataError::Permanent(_) | DataError::StaleFence(_) => Self::User(error.to_string()),
        }
    }
}

/// A model that exists.
struct Known {
    model: String,
    current: Option<String>,
    history: History,
}

impl Known {
    fn of(home: &Path, model: &str) -> Result<Self, CliError> {
        // A model's name becomes a path.
        DatasetName::parse(model).map_err(CliError::User)?;
        if models::versions(home, model)?.is_empty() {
            let known = models::list(home)?;
            let hint = match crate::data::hint_near(model, known.iter().map(String::as_str)) {
                hint if hint.is_empty() => "\nhint: a `cluster` task makes one".to_owned(),
                hint => hint,
            };
            return Err(CliError::User(format!("there is no model `{model}` in {}{hint}", home.display())));
        }
        let history = models::history(home, model)?;
        Ok(Self { model: model.to_owned(), current: models::current(home, model)?, history })
    }

    fn served(&self) -> Result<String, CliError> {
        self.current.clone().ok_or_else(|| {
            let model = &self.model;
            CliError::User(format!(
                "no version of `{model}` is served yet\nhint: name the version to compare with"
            ))
        })
    }

    fn newest(&self) -> Result<String, CliError> {
        let candidates = self.history.0.iter().rev().find(|r| r.event == Event::Candidate);
        candidates.map(|r| r.version.clone()).ok_or_else(|| {
            CliError::User(format!("model `{}` has no candidate\nhint: name the version", self.model))
        })
    }

    fn usual(&self) -> Result<String, CliError> {
        self.current.clone().map_or_else(|| self.newest(), Ok)
    }

    fn read(&self, home: &Path, version: &str) -> Result<Model, CliError> {
        let text = models::text(home, &self.model, version)?;
        Model::from_json(&text)
            .map_err(|error| CliError::User(format!("model `{}` version {version}: {error}", self.model)))
    }

    fn show(&self, home: &Path, version: &str, output: Output) -> Result<(), CliError> {
        let model = self.read(home, version)?;
        let is_current = self.current.as_deref() == Some(version);
        let stale_since = self.history.stale_since().map(|r| r.at.clone());
        let records: Vec<&Record> = self.history.0.iter().filter(|r| r.version == version).collect();
        if output == Output::Json {
            print_json(&json!({
                "model": self.model,
                "version": version,
                "current": is_current,
                "stale_since": stale_since,
                "segments": model.segments,
                "metrics": model.metrics,
                "features": model.features,
                "history": records,
            }));
            return Ok(());
        }
        let place = match (&self.current, is_current) {
            (_, true) => "served".to_owned(),
            (Some(current), false) => format!("not served; {current} is"),
            (None, false) => "not served; no version is".to_owned(),
        };
        print_line(&format!("{} version {version} ({place})", self.model));
        if let Some(since) = stale_since {
            print_line(&format!("stale since {since}: newer versions were blocked"));
        }
        print_line(&figures(&model));
        let mut segments = table::with_head(&["segment_id", "name", "customers", "share"]);
        for s in &model.segments {
            segments.add_row([s.segment_id.clone(), s.name.clone(), s.n.to_string(), percent(s.share)]);
        }
        print_line(&table::text(&segments));
        let mut events = table::with_head(&["at", "event", "by", "why"]);
        for r in records.iter().rev().take(RECORDS_SHOWN).rev() {
            let why = r.why.lines().next().unwrap_or_default().to_owned();
            events.add_row([r.at.clone(), r.event.as_str().to_owned(), by(r), why]);
        }
        print_line(&table::text(&events));
        Ok(())
    }

    fn diff(&self, home: &Path, old: &str, new: &str, output: Output) -> Result<(), CliError> {
        let (was, is) = (self.read(home, old)?, self.read(home, new)?);
        let changes = changes(&was, &is);
        if output == Output::Json {
            print_json(&json!({
                "model": self.model, "old": old, "new": new,
                "figures": {"old": was.metrics, "new": is.metrics},
                "segments": changes.iter().map(Change::json).collect::<Vec<_>>(),
                "features": features(&was, &is),
            }));
            return Ok(());
        }
        print_line(&format!("{}: {old} → {new}", self.model));
        print_line(&format!("old: {}\nnew: {}", figures(&was), figures(&is)));
        let mut rows = table::with_head(&["segment_id", "old name", "new name", "old share", "new share"]);
        for change in &changes {
            let name = |side: &Option<(String, f64)>| side.as_ref().map_or("-".to_owned(), |s| s.0.clone());
            let share = |side: &Option<(String, f64)>| side.as_ref().map_or("-".to_owned(), |s| percent(s.1));
            let (old, new) = (&change.old, &change.new);
            rows.add_row([change.segment_id.clone(), name(old), name(new), share(old), share(new)]);
        }
        print_line(&table::text(&rows));
        for (feature, [before, after]) in features(&was, &is) {
            print_line(&format!("{feature}\n  - {before}\n  + {after}"));
        }
        Ok(())
    }
}

/// One segment in both versions.
struct Change {
    segment_id: String,
    old: Option<(String, f64)>,
    new: Option<(String, f64)>,
}

impl Change {
    fn json(&self) -> Value {
        let side = |side: &Option<(String, f64)>| {
            side.as_ref().map(|(name, share)| json!({"name": name, "share": share}))
        };
        json!({"segment_id": self.segment_id, "old": side(&self.old), "new": side(&self.new)})
    }
}

/// Segments of the new version in its order, then those that are gone.
fn changes(old: &Model, new: &Model) -> Vec<Change> {
    let side = |model: &Model, id: &str| {
        model.segments.iter().find(|s| s.segment_id == id).map(|s| (s.name.clone(), s.share))
    };
    let ids = new.segments.iter().map(|s| &s.segment_id);
    let gone = old.segments.iter().map(|s| &s.segment_id).filter(|id| side(new, id).is_none());
    ids.chain(gone)
        .map(|id| Change { segment_id: id.clone(), old: side(old, id), new: side(new, id) })
        .collect()
}

/// Features whose preparation differs: before and after.
fn features(old: &Model, new: &Model) -> BTreeMap<String, [String; 2]> {
    let text = |model: &Model, name: &str| {
        let found = model.features.features().iter().find(|f| f.name() == name);
        found.map_or("-".to_owned(), |f| serde_json::to_string(f).unwrap_or_default())
    };
    let all = old.features.features().iter().chain(new.features.features());
    all.map(|f| (f.name().to_owned(), [text(old, f.name()), text(new, f.name())]))
        .filter(|(_, [old, new])| old != new)
        .collect()
}

fn figures(model: &Model) -> String {
    let silhouette = model.metrics.silhouette.map_or("-".to_owned(), |s| format!("{:.4}", s.value));
    format!(
        "{}, k {}, {} rows, inertia {:.4}, silhouette {silhouette}",
        model.algorithm,
        model.segments.len(),
        model.rows,
        model.metrics.inertia
    )
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn by(record: &Record) -> String {
    format!("{} {} {}", record.dag_id, record.run_id, record.task_id)
}

fn list(home: &Path, output: Output) -> Result<(), CliError> {
    let mut rows = table::with_head(&["model", "served", "since", "segments", "versions", "stale since"]);
    let mut all = Vec::new();
    for name in models::list(home)? {
        let known = Known::of(home, &name)?;
        let versions = models::versions(home, &name)?.len();
        let since = known.history.served().map(|r| r.at);
        let stale = known.history.stale_since().map(|r| r.at.clone());
        let segments = known.current.as_ref().and_then(|version| known.read(home, version).ok());
        let segments = segments.map(|model| model.segments.len());
        all.push(json!({"model": name, "current": known.current, "since": since, "segments": segments,
            "versions": versions, "stale_since": stale}));
        let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let segments = dash(segments.map(|n| n.to_string()));
        rows.add_row([name, dash(known.current), dash(since), segments, versions.to_string(), dash(stale)]);
    }
    match output {
        Output::Json => print_json(&all),
        Output::Table => print_line(&table::text(&rows)),
    }
    Ok(())
}

async fn promote(globals: &Globals, model: &str, version: &str, reason: &str) -> Result<(), CliError> {
    let home = &globals.config.home;
    let known = Known::of(home, model)?;
    known.read(home, version)?;
    let Some(record) = known.history.of_version(version) else {
        return Err(CliError::User(format!(
            "the history of model `{model}` does not say where the segments of version {version} are"
        )));
    };
    let shared = home::shared(globals, globals.config.dags.clone())?;
    let key = WriteKey { app_id: format!("models/promote/{model}"), fence: 0 };
    let datasets = served::hold(&shared.lake, &record.datasets, &key).await?;
    let user = globals.environment.get("USER").or_else(|| globals.environment.get("LOGNAME"));
    let record = Record {
        event: Event::Forced,
        dag_id: "models".to_owned(),
        run_id: "promote".to_owned(),
        task_id: user.cloned().unwrap_or_else(|| "somebody".to_owned()),
        at: crate::engine::now().to_string(),
        datasets,
        why: reason.to_owned(),
        ..record.clone()
    };
    models::point(home, model, version, "promote")?;
    models::note(home, model, &record)?;
    eprintln!(
        "version {version} of model `{model}` is served from now on; `{}` holds its segments again\n\
         hint: tables that a `load` task fills follow with the next run of that task",
        record.assignments
    );
    if globals.output == Output::Json {
        print_json(&record);
    }
    Ok(())
}
