//! DAG files as they change: the last good version of each, and what is wrong with the newest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::core::ids::DagId;
use crate::dagbag::{self, DagFile, Problem};

/// What tells one state of a file from another without reading it.
type Stamp = (SystemTime, u64);

/// The folder of DAG files, as far as it has been read.
#[derive(Debug)]
pub struct DagFiles {
    folder: PathBuf,
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
    /// The DAGs of each file, as of its last version without problems.
    dags: BTreeMap<PathBuf, BTreeSet<DagId>>,
    problems: BTreeMap<PathBuf, Vec<Problem>>,
}

/// What has changed since the folder was last looked at.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// DAGs that are new or may be different.
    pub changed: Vec<DagFile>,
    /// DAGs whose file, or whose place in it, is gone.
    pub lost: Vec<DagId>,
    /// Files that cannot be used any more, with the first line of what is wrong: their last good version stays.
    pub broken: Vec<(PathBuf, String)>,
    /// Files that can be used again, or are gone.
    pub mended: Vec<PathBuf>,
}

impl DagFiles {
    /// A folder of which nothing has been read.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, stamps: BTreeMap::new(), dags: BTreeMap::new(), problems: BTreeMap::new() }
    }

    /// What is wrong with the newest versions of all files, by file.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// Reads what has changed. Nothing of the others is looked at but their times and sizes.
    pub fn reload(&mut self) -> Reloaded {
        let mut reloaded = Reloaded::default();
        let files: BTreeSet<PathBuf> = if self.folder.is_dir() {
            dagbag::files_of(&self.folder).into_iter().collect()
        } else {
            BTreeSet::new()
        };
        for gone in self.stamps.keys().filter(|path| !files.contains(*path)).cloned().collect::<Vec<_>>() {
            self.stamps.remove(&gone);
            reloaded.lost.extend(self.dags.remove(&gone).unwrap_or_default());
            if self.problems.remove(&gone).is_some() {
                reloaded.mended.push(gone);
            }
        }
        for path in files {
            let stamp = stamp(&path);
            if self.stamps.get(&path) != Some(&stamp) {
                self.stamps.insert(path.clone(), stamp);
                self.read(path, &mut reloaded);
            }
        }
        let there: BTreeSet<&DagId> = self.dags.values().flatten().collect();
        reloaded.lost.retain(|id| !there.contains(id));
        reloaded
    }

    fn read(&mut self, path: PathBuf, reloaded: &mut Reloaded) {
        let (files, mut problems) = dagbag::load_file(&path);
        for file in &files {
            let taken = |(other, ids): (&PathBuf, &BTreeSet<DagId>)| {
                (*other != path && ids.contains(&file.dag.id)).then(|| other.clone())
            };
            if let Some(other) = self.dags.iter().find_map(taken) {
                let what = format!("the DAG `{}` is defined in {} already", file.dag.id, other.display());
                problems.push(Problem {
                    file: path.to_string_lossy().into_owned(),
                    ..Problem::at(file.place, what)
                });
            }
        }
        if let Some(first) = problems.first() {
            reloaded.broken.push((path.clone(), first.to_string()));
            self.problems.insert(path, problems);
            return;
        }
        if self.problems.remove(&path).is_some() {
            reloaded.mended.push(path.clone());
        }
        let ids: BTreeSet<DagId> = files.iter().map(|file| file.dag.id.clone()).collect();
        let before = self.dags.insert(path, ids.clone()).unwrap_or_default();
        reloaded.lost.extend(before.into_iter().filter(|id| !ids.contains(id)));
        reloaded.changed.extend(files);
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}
