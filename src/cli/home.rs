//! Opens the home: the store, and what attempts share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CliError, Globals};
use crate::core::ids::{BadId, PoolName};
use crate::dagbag::{self, Bag, DagFile};
use crate::store::Store;
use crate::tasks::Shared;

/// Opens the database of run state, creating the home if there is none.
pub(super) async fn open_store(globals: &Globals) -> Result<Store, CliError> {
    let home = &globals.config.home;
    std::fs::create_dir_all(home).map_err(|e| {
        CliError::Environment(format!(
            "the home folder {} cannot be created: {e}\nhint: name another with --home or MAINSPRING_HOME",
            home.display()
        ))
    })?;
    Ok(Store::open(&globals.config.database, globals.durability).await?)
}

/// Opens the database of run state for reading, also while another process owns the home.
pub(super) async fn open_reader(globals: &Globals) -> Result<Store, CliError> {
    Ok(Store::open_reader(&globals.config.database).await?)
}

/// The database as it may be shown: without a password.
pub(super) fn shown(globals: &Globals) -> String {
    match globals.config.database.split_once('@') {
        Some((before, host)) if globals.config.database.starts_with("postgres") => {
            let scheme = before.split("://").next().unwrap_or("postgres");
            format!("{scheme}://…@{host}")
        }
        Some(_) | None => globals.config.database.clone(),
    }
}

/// Pools with a limit, as the settings say.
pub(super) fn pools(globals: &Globals) -> Result<BTreeMap<PoolName, u32>, CliError> {
    let pool = |(name, &slots): (&String, &u32)| Ok((PoolName::parse(name)?, slots));
    let pools: Result<_, BadId> = globals.config.pools.iter().map(pool).collect();
    pools.map_err(|e| CliError::User(e.to_string()))
}

/// What attempts of this process share. `base` is the folder that `file:` in DAG files is relative to.
pub(super) fn shared(globals: &Globals, base: PathBuf) -> Result<Arc<Shared>, CliError> {
    let config = &globals.config;
    let http = reqwest::Client::builder()
        .user_agent(concat!("mainspring/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| CliError::Environment(format!("the HTTP client cannot be made: {e}")))?;
    #[cfg(feature = "data")]
    let lake = crate::data::lake::Lake::open(&config.lake, &config.home.join("scratch"))
        .map_err(|e| CliError::Environment(format!("the lake {} cannot be opened: {e}", config.lake)))?;
    #[cfg(feature = "data")]
    let connections = connections(globals)?;
    Ok(Arc::new(Shared {
        dags_dir: std::path::absolute(&base).unwrap_or(base),
        home: config.home.clone(),
        inherited_env: config
            .inherited_env
            .iter()
            .filter_map(|name| Some((name.clone(), globals.environment.get(name)?.clone())))
            .collect(),
        http,
        #[cfg(feature = "data")]
        lake,
        #[cfg(feature = "data")]
        connections,
    }))
}

/// Connections of the settings file and the environment.
#[cfg(feature = "data")]
fn connections(globals: &Globals) -> Result<crate::data::connections::Connections, CliError> {
    let mut declared = std::collections::BTreeMap::new();
    for (name, value) in &globals.config.connections {
        let connection = serde_json::from_value(value.clone()).map_err(|_value_may_be_secret| {
            CliError::User(format!(
                "connection `{name}` is neither an address nor a table with `url`\nhint: {name} = \"postgres://user@host/database\""
            ))
        })?;
        declared.insert(name.clone(), connection);
    }
    Ok(crate::data::connections::Connections::new(declared, &globals.environment, &globals.config.home))
}

/// A DAG that was asked for by file or by name, and the folder its paths are relative to.
pub(super) struct Found {
    /// The DAG.
    pub(super) file: DagFile,
    /// See above.
    pub(super) base: PathBuf,
}

/// Finds DAGs by file (`dags/shop.yaml`: all in it) or by name (`shop`, in the DAG folder).
///
/// # Errors
/// Problems of the files are printed to stderr; then [`CliError::Failed`].
pub(super) fn find_dags(globals: &Globals, asked: &[String]) -> Result<Vec<Found>, CliError> {
    let folder = &globals.config.dags;
    let mut found = Vec::new();
    let mut bag: Option<Bag> = None;
    for name in asked {
        let path = Path::new(name);
        if path.is_file() || name.ends_with(".yaml") || name.ends_with(".yml") {
            let bag = load(path)?;
            let base = base_of(path, folder);
            found.extend(bag.dags.into_iter().map(|file| Found { file, base: base.clone() }));
            continue;
        }
        if bag.is_none() {
            bag = Some(load_leniently(folder)?);
        }
        let bag = bag.as_ref().expect("it was filled above");
        match bag.dags.iter().find(|d| d.dag.id.as_str() == name) {
            Some(file) => found.push(Found { file: file.clone(), base: folder.clone() }),
            None => return Err(unknown_dag(name, folder, bag)),
        }
    }
    Ok(found)
}

fn unknown_dag(name: &str, folder: &Path, bag: &Bag) -> CliError {
    for problem in &bag.problems {
        eprintln!("{problem}");
    }
    let near = bag
        .dags
        .iter()
        .map(|d| (strsim::damerau_levenshtein(name, d.dag.id.as_str()), d.dag.id.as_str()))
        .filter(|(distance, id)| *distance <= id.len() / 2)
        .min();
    let hint = match near {
        Some((_, id)) => format!("did you mean `{id}`?"),
        None => "`mainspring dags list` shows them all; a file can be named by its path".to_owned(),
    };
    CliError::User(format!("there is no DAG `{name}` in {}\nhint: {hint}", folder.display()))
}

/// Relative paths in a file of the DAG folder count from that folder; in any other, from the file's own.
fn base_of(file: &Path, folder: &Path) -> PathBuf {
    let absolute = |p: &Path| std::path::absolute(p).unwrap_or_else(|_| p.to_owned());
    if absolute(file).starts_with(absolute(folder)) {
        return folder.to_owned();
    }
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Loads a file; any problem in it is printed and ends the command.
fn load(path: &Path) -> Result<Bag, CliError> {
    let bag = dagbag::load_path(path);
    if bag.problems.is_empty() {
        return Ok(bag);
    }
    for problem in &bag.problems {
        eprintln!("{problem}");
    }
    Err(CliError::Failed)
}

/// Loads a folder; a broken file does not hide the others.
fn load_leniently(folder: &Path) -> Result<Bag, CliError> {
    if !folder.is_dir() {
        return Err(CliError::User(format!(
            "there is no DAG folder {}\nhint: name it with --dags or MAINSPRING_DAGS",
            folder.display()
        )));
    }
    Ok(dagbag::load_path(folder))
}
