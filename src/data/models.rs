//! Model artefacts on disk: `<home>/models/<model>/<version>/model.json`; `current`, which names the version
//! that is served; and `history.jsonl`, which says how it came to be: every candidate, every promotion, every
//! block.
//!
//! A version's folder appears whole, by a rename, and never changes; so does the pointer. The history only
//! grows. Knows nothing of what a model says.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DataError, hint_near};

const MODEL: &str = "model.json";
const CURRENT: &str = "current";
const HISTORY: &str = "history.jsonl";

/// What happened to a version of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A clustering wrote it.
    Candidate,
    /// Its gate passed: it is served from then on.
    Promoted,
    /// Its gate failed: what was served before stays.
    Blocked,
    /// A person had it served, gate or not.
    Forced,
}

impl Event {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Promoted => "promoted",
            Self::Blocked => "blocked",
            Self::Forced => "forced",
        }
    }
}

/// What a model was fitted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FittedOn {
    /// The dataset.
    pub dataset: String,
    /// Its version.
    pub version: i64,
    /// The column that identifies a row.
    pub key: String,
    /// The predicate that chose its rows, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    /// The moment that ages count from, RFC 3339.
    pub as_of: String,
}

/// One line of a model's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What happened.
    pub event: Event,
    /// To which version.
    pub version: String,
    /// Who did it: the DAG, or `models promote` …
    pub dag_id: String,
    /// … its run …
    pub run_id: String,
    /// … and its task.
    pub task_id: String,
    /// The moment the run stands for, RFC 3339; for a person's command, when it was given.
    pub at: String,
    /// The dataset of assignments.
    pub assignments: String,
    /// Datasets and their versions that hold this version's rows; of [`Event::Blocked`], those that hold
    /// what stays served.
    pub datasets: BTreeMap<String, i64>,
    /// What it was fitted on.
    pub fitted_on: FittedOn,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// All that is known of a model, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History(pub Vec<Record>);

impl History {
    /// What is served: the last version promoted or forced, with the datasets that hold it today.
    #[must_use]
    pub fn served(&self) -> Option<Record> {
        self.served_before(self.0.len())
    }

    /// What was served before that: the last promotion of other rows.
    #[must_use]
    pub fn served_previously(&self) -> Option<Record> {
        let last = self.0.iter().rposition(Record::serves)?;
        self.served_before(last)
    }

    /// What was served when this run of this DAG made its first candidate; what is served if it made none.
    #[must_use]
    pub fn served_before_run(&self, dag_id: &str, run_id: &str) -> Option<Record> {
        let ours = |r: &Record| r.event == Event::Candidate && r.dag_id == dag_id && r.run_id == run_id;
        self.served_before(self.0.iter().position(ours).unwrap_or(self.0.len()))
    }

    fn served_before(&self, end: usize) -> Option<Record> {
        let at = self.0[..end].iter().rposition(Record::serves)?;
        let mut record = self.0[at].clone();
        let mut later = self.0[at + 1..end].iter();
        if let Some(last) = later.rfind(|r| r.event == Event::Blocked && !r.datasets.is_empty()) {
            record.datasets.clone_from(&last.datasets);
        }
        Some(record)
    }

    /// Since when nothing newer could be published: the first block after the last promotion.
    #[must_use]
    pub fn stale_since(&self) -> Option<&Record> {
        let after = self.0.iter().rposition(Record::serves).map_or(0, |at| at + 1);
        self.0[after..].iter().find(|r| r.event == Event::Blocked)
    }

    /// The last candidate that this run of this DAG made.
    #[must_use]
    pub fn candidate_of(&self, dag_id: &str, run_id: &str) -> Option<&Record> {
        let ours = |r: &&Record| r.event == Event::Candidate && r.dag_id == dag_id && r.run_id == run_id;
        self.0.iter().rev().find(ours)
    }

    /// The last record that says where the rows of a version are.
    #[must_use]
    pub fn of_version(&self, version: &str) -> Option<&Record> {
        self.0.iter().rev().find(|r| r.version == version && r.event != Event::Blocked)
    }
}

impl Record {
    /// Whether the version is served from this moment on.
    fn serves(&self) -> bool {
        matches!(self.event, Event::Promoted | Event::Forced)
    }
}

/// Where models live under the home folder.
fn folder(home: &Path, model: &str) -> PathBuf {
    home.join("models").join(model)
}

/// Keeps `text` as `version` of `model`; a version that is there already stays. `model` and `version` are
/// names without separators. `attempt` tells rival writers apart.
///
/// # Errors
/// [`DataError::Retryable`] for what the file system refuses.
pub fn keep(home: &Path, model: &str, version: &str, text: &str, attempt: &str) -> Result<(), DataError> {
    let folder = folder(home, model);
    let kept = || -> io::Result<()> {
        let place = folder.join(version);
        if place.join(MODEL).exists() {
            return Ok(());
        }
        let new = folder.join(format!(".{version}.{attempt}"));
        fs::create_dir_all(&new)?;
        write_durably(&new.join(MODEL), text)?;
        sync_folder(&new)?;
        match fs::rename(&new, &place) {
            // A rival was faster; the same version has the same bytes.
            Err(_) if place.join(MODEL).exists() => fs::remove_dir_all(&new)?,
            renamed => renamed?,
        }
        sync_folder(&folder)
    };
    kept().map_err(|error| unusable(&folder, &error))
}

/// Makes `version` the current one of `model`; nothing is written if it is.
///
/// # Errors
/// As [`keep`].
pub fn point(home: &Path, model: &str, version: &str, attempt: &str) -> Result<(), DataError> {
    let folder = folder(home, model);
    let pointed = || -> io::Result<()> {
        let pointer = folder.join(CURRENT);
        if fs::read_to_string(&pointer).is_ok_and(|text| text.trim() == version) {
            return Ok(());
        }
        let new = folder.join(format!(".{CURRENT}.{attempt}"));
        write_durably(&new, &format!("{version}\n"))?;
        fs::rename(&new, &pointer)?;
        sync_folder(&folder)
    };
    pointed().map_err(|error| unusable(&folder, &error))
}

/// The version that is served; `None` before the first promotion.
///
/// # Errors
/// [`DataError::Retryable`] for what the file system refuses.
pub fn current(home: &Path, model: &str) -> Result<Option<String>, DataError> {
    let folder = folder(home, model);
    match fs::read_to_string(folder.join(CURRENT)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(&folder, &error)),
    }
}

/// The text of one version.
///
/// # Errors
/// [`DataError::Permanent`] with the near name if there is no such model or version.
pub fn text(home: &Path, model: &str, version: &str) -> Result<String, DataError> {
    let folder = folder(home, model);
    // A version is a name, never a path.
    if !version.is_empty() && version.chars().all(|c| c.is_ascii_alphanumeric()) {
        match fs::read_to_string(folder.join(version).join(MODEL)) {
            Ok(text) => return Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unusable(&folder, &error)),
        }
    }
    let known = versions(home, model)?;
    if known.is_empty() {
        let models = list(home)?;
        let hint = hint_near(model, models.iter().map(String::as_str));
        return Err(DataError::Permanent(format!("there is no model `{model}`{hint}")));
    }
    let hint = hint_near(version, known.iter().map(String::as_str));
    Err(DataError::Permanent(format!("model `{model}` has no version `{version}`{hint}")))
}

/// All models, by name.
///
/// # Errors
/// [`DataError::Retryable`] for what the file system refuses.
pub fn list(home: &Path) -> Result<Vec<String>, DataError> {
    folders_in(&home.join("models"))
}

/// All versions of a model, by name; none if there is no such model.
///
/// # Errors
/// As [`list`].
pub fn versions(home: &Path, model: &str) -> Result<Vec<String>, DataError> {
    folders_in(&folder(home, model))
}

fn folders_in(folder: &Path) -> Result<Vec<String>, DataError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unusable(folder, &error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unusable(folder, &error))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.starts_with('.') && entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The history of a model; empty if there is none. A line that a power loss tore is left out.
///
/// # Errors
/// As [`list`].
pub fn history(home: &Path, model: &str) -> Result<History, DataError> {
    let folder = folder(home, model);
    let text = match fs::read_to_string(folder.join(HISTORY)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(History::default()),
        Err(error) => return Err(unusable(&folder, &error)),
    };
    Ok(History(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()))
}

/// Adds a record to the history of `model`, unless it is the last one already.
///
/// # Errors
/// As [`list`].
pub fn note(home: &Path, model: &str, record: &Record) -> Result<(), DataError> {
    if history(home, model)?.0.last() == Some(record) {
        return Ok(());
    }
    let folder = folder(home, model);
    let line = serde_json::to_string(record).expect("a record holds texts and numbers only");
    let noted = || -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(folder.join(HISTORY))?;
        let torn = ends_torn(&mut file)?;
        file.write_all(format!("{}{line}\n", if torn { "\n" } else { "" }).as_bytes())?;
        file.sync_all()?;
        sync_folder(&folder)
    };
    noted().map_err(|error| unusable(&folder, &error))
}

/// Whether the file's last line has no end.
fn ends_torn(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last[0] != b'\n')
}

fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn unusable(folder: &Path, error: &io::Error) -> DataError {
    DataError::Retryable(format!("model folder {}: {error}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: Event, version: &str, run: &str, at_version: i64) -> Record {
        let fitted_on = FittedOn {
            dataset: "f".into(),
            version: 0,
            key: "id".into(),
            only: None,
            as_of: "2026-01-01T00:00:00Z".into(),
        };
        Record {
            event,
            version: version.into(),
            dag_id: "d".into(),
            run_id: run.into(),
            task_id: "t".into(),
            at: "2026-01-01T00:00:00Z".into(),
            assignments: "s".into(),
            datasets: BTreeMap::from([("s".into(), at_version)]),
            fitted_on,
            why: String::new(),
        }
    }

    #[test]
    fn a_version_never_changes_and_the_pointer_follows() {
        let home = tempfile::tempdir().unwrap();
        keep(home.path(), "m", "v1", "one", "a").unwrap();
        keep(home.path(), "m", "v1", "other", "b").unwrap();
        keep(home.path(), "m", "v2", "two", "a").unwrap();
        assert_eq!(current(home.path(), "m").unwrap(), None);
        point(home.path(), "m", "v1", "a").unwrap();
        point(home.path(), "m", "v2", "a").unwrap();
        let read = |version: &str| text(home.path(), "m", version).unwrap();
        assert_eq!((read("v1"), read("v2")), ("one".into(), "two".into()));
        assert_eq!(current(home.path(), "m").unwrap().as_deref(), Some("v2"));
        assert_eq!(versions(home.path(), "m").unwrap(), ["v1", "v2"]);
        assert_eq!(list(home.path()).unwrap(), ["m"]);
    }

    #[test]
    fn what_is_not_there_is_answered_with_what_is() {
        let home = tempfile::tempdir().unwrap();
        keep(home.path(), "customers", "abc1", "one", "a").unwrap();
        let error = text(home.path(), "custmers", "abc1").unwrap_err().to_string();
        assert_eq!(error, "there is no model `custmers`\nhint: did you mean `customers`?");
        let error = text(home.path(), "customers", "abc2").unwrap_err().to_string();
        assert_eq!(error, "model `customers` has no version `abc2`\nhint: did you mean `abc1`?");
        assert!(text(home.path(), "customers", "../customers/abc1").is_err());
    }

    #[test]
    fn the_history_says_what_is_served_and_since_when_it_is_stale() {
        let served = |records: &[Record]| {
            let history = History(records.to_vec());
            let served = history.served().map(|r| (r.version, r.datasets["s"]));
            (served, history.stale_since().map(|r| r.run_id.clone()))
        };
        let mut records = vec![record(Event::Candidate, "v1", "r1", 1)];
        assert_eq!(served(&records), (None, None));
        records.push(record(Event::Promoted, "v1", "r1", 1));
        records.push(record(Event::Candidate, "v2", "r2", 2));
        assert_eq!(served(&records), (Some(("v1".into(), 1)), None));
        // A block restores what was served, as a newer version of the dataset.
        records.push(record(Event::Blocked, "v2", "r2", 3));
        records.push(record(Event::Blocked, "v2", "r3", 5));
        assert_eq!(served(&records), (Some(("v1".into(), 5)), Some("r2".into())));
        records.push(record(Event::Forced, "v2", "r2", 6));
        assert_eq!(served(&records), (Some(("v2".into(), 6)), None));
        let history = History(records);
        assert_eq!(history.served_previously().map(|r| (r.version, r.datasets["s"])), Some(("v1".into(), 5)));
        assert_eq!(history.candidate_of("d", "r2").map(|r| r.datasets["s"]), Some(2));
        assert_eq!(history.candidate_of("e", "r2"), None);
        // A repeated attempt looks at what the first one looked at.
        let before = |run: &str| history.served_before_run("d", run).map(|r| (r.version, r.datasets["s"]));
        assert_eq!((before("r1"), before("r2")), (None, Some(("v1".into(), 1))));
        assert_eq!(before("r4"), Some(("v2".into(), 6)));
    }

    #[test]
    fn a_torn_line_costs_itself_alone_and_a_repeated_note_adds_nothing() {
        let home = tempfile::tempdir().unwrap();
        let (first, second) =
            (record(Event::Candidate, "v1", "r1", 1), record(Event::Promoted, "v1", "r1", 1));
        note(home.path(), "m", &first).unwrap();
        note(home.path(), "m", &first).unwrap();
        let path = home.path().join("models/m/history.jsonl");
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{{\"event\":\"prom")).unwrap();
        note(home.path(), "m", &second).unwrap();
        assert_eq!(history(home.path(), "m").unwrap().0, [first, second]);
    }
}
