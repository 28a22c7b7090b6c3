//! Every setting of the process, with its unit and default. Precedence: flag, environment `MAINSPRING_…`,
//! `mainspring.toml`, default. This is the only place that reads the environment; `cli` alone reads this.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::alerts::settings::AlertSettings;
use crate::tasks::units::parse_span;

/// What one process of mainspring may use.
#[derive(Debug, Clone)]
pub struct Config {
    /// The home folder: database, lake, logs, models, warehouse, scratch.
    pub home: PathBuf,
    /// The folder of the DAG files.
    pub dags: PathBuf,
    /// `sqlite://…` or `postgres://…`; default: `mainspring.db` in the home.
    pub database: String,
    /// Where datasets live: an address of an object store, or a folder; default: `lake` in the home.
    pub lake: String,
    /// Attempts at once in this process.
    pub slots: u32,
    /// Memory for SQL, in bytes; beyond it, operators spill to disk.
    pub memory_limit_bytes: usize,
    /// Pools with a limit: slots by name.
    pub pools: BTreeMap<String, u32>,
    /// Connections by name, as written.
    pub connections: BTreeMap<String, serde_json::Value>,
    /// Names of environment variables that subprocesses inherit.
    pub inherited_env: Vec<String>,
    /// How long after their end runs are kept by `serve`; for ever if absent.
    pub keep_runs: Option<Duration>,
    /// Where alerts go.
    pub alerts: AlertSettings,
}

/// `mainspring.toml`: every key optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    home: Option<PathBuf>,
    dags: Option<PathBuf>,
    database: Option<String>,
    lake: Option<String>,
    slots: Option<u32>,
    memory_limit_mib: Option<usize>,
    #[serde(default)]
    pools: BTreeMap<String, u32>,
    #[serde(default)]
    connections: BTreeMap<String, serde_json::Value>,
    inherited_env: Option<Vec<String>>,
    keep_runs: Option<String>,
    #[serde(default)]
    alerts: BTreeMap<String, serde_json::Value>,
}

/// What was said on the command line or in the environment of the process.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// `--home`
    pub home: Option<PathBuf>,
    /// `--dags`
    pub dags: Option<PathBuf>,
    /// `--database`
    pub database: Option<String>,
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--slots`
    pub slots: Option<u32>,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}", file = file.display())]
pub struct ConfigError {
    /// The file it stands in.
    pub file: PathBuf,
    /// What is wrong.
    pub problem: String,
}

const CONFIG_FILE: &str = "mainspring.toml";
const SLOTS_DEFAULT: u32 = 16;
const MEMORY_LIMIT_MIB_DEFAULT: usize = 512;
/// Enough to compare with the year before, and not without end.
const KEEP_RUNS_DEFAULT: &str = "400d";
const KEEP_RUNS_FOREVER: &str = "forever";

impl Config {
    /// Puts together what was said, the file, and the defaults.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read, or holds an unknown key or a wrong value.
    pub fn gather(said: Said) -> Result<Self, ConfigError> {
        let path = said.config.clone().or_else(|| {
            let usual = Path::new(CONFIG_FILE);
            usual.exists().then(|| usual.to_owned())
        });
        let file = path.as_deref().map(read).transpose()?.unwrap_or_default();
        let keep_runs = keep_runs(file.keep_runs.as_deref().unwrap_or(KEEP_RUNS_DEFAULT))
            .map_err(|problem| ConfigError { file: path.clone().unwrap_or_default(), problem })?;
        let alerts = AlertSettings::read(&file.alerts).map_err(|problems| {
            let file = path.unwrap_or_default();
            let next = format!("\nerror: {}: ", file.display());
            let problem = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(&next);
            ConfigError { file, problem }
        })?;
        let home = said.home.or(file.home).unwrap_or_else(|| PathBuf::from(".mainspring"));
        let home = std::path::absolute(&home).unwrap_or(home);
        Ok(Self {
            database: said
                .database
                .or(file.database)
                .unwrap_or_else(|| format!("sqlite://{}", home.join("mainspring.db").display())),
            lake: file.lake.unwrap_or_else(|| home.join("lake").display().to_string()),
            dags: said.dags.or(file.dags).unwrap_or_else(|| PathBuf::from("dags")),
            slots: said.slots.or(file.slots).unwrap_or(SLOTS_DEFAULT).max(1),
            memory_limit_bytes: file.memory_limit_mib.unwrap_or(MEMORY_LIMIT_MIB_DEFAULT) << 20,
            pools: file.pools,
            inherited_env: file.inherited_env.unwrap_or_else(|| {
                ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"].map(str::to_owned).to_vec()
            }),
            connections: file.connections,
            keep_runs,
            alerts,
            home,
        })
    }

    /// The folder of the task logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.home.join("logs")
    }
}

fn keep_runs(text: &str) -> Result<Option<Duration>, String> {
    if text == KEEP_RUNS_FOREVER {
        return Ok(None);
    }
    parse_span(text).map(Some).ok_or_else(|| {
        format!("keep_runs: `{text}` is no span of time\nhint: 90d, 24h, or `{KEEP_RUNS_FOREVER}`")
    })
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let wrong = |problem: String| ConfigError { file: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    toml::from_str(&text).map_err(|e| wrong(e.to_string().trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_beats_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.toml");
        std::fs::write(&path, "home = '/from/file'\nslots = 3\n[pools]\ndb = 4\n").unwrap();
        let said = Said { config: Some(path), slots: Some(7), ..Said::default() };
        let config = Config::gather(said).unwrap();
        assert_eq!((config.slots, config.pools["db"]), (7, 4));
        assert_eq!(config.database, "sqlite:///from/file/mainspring.db");
    }

    #[test]
    fn runs_are_kept_for_a_span_or_for_ever() {
        assert_eq!(keep_runs("90d"), Ok(Some(Duration::from_secs(90 * 86_400))));
        assert_eq!(keep_runs("forever"), Ok(None));
        let text = keep_runs("always").unwrap_err();
        assert!(text.contains("`always`") && text.contains("90d"), "{text}");
        assert!(Config::gather(Said::default()).unwrap().keep_runs.is_some());
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.toml");
        std::fs::write(&path, "hoem = '/x'\n").unwrap();
        let said = Said { config: Some(path), ..Said::default() };
        let text = Config::gather(said).unwrap_err().to_string();
        assert!(text.contains("m.toml") && text.contains("hoem"), "{text}");
    }
}
