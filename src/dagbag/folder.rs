//! Files and folders to a [`Bag`]. A broken file never hides the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::file::{DagFile, load_text};
use super::problem::{Place, Problem};
use super::yaml::FILE_BYTES_MAX;

/// Folders may nest this deep.
const FOLDERS_DEPTH_MAX: usize = 16;
/// Fewer files than this are read by one thread.
const FILES_PER_THREAD: usize = 64;

/// All DAGs of a file or folder, and everything that is wrong with the others.
#[derive(Debug, Default)]
pub struct Bag {
    /// The DAGs without problems, in the order of their files.
    pub dags: Vec<DagFile>,
    /// What is wrong, in the order of files and lines.
    pub problems: Vec<Problem>,
}

/// Reads a file, or every `.yaml` and `.yml` file of a folder and its subfolders (hidden ones apart).
#[must_use]
pub fn load_path(path: &Path) -> Bag {
    let mut bag = Bag::default();
    let files = listed(path, &mut bag.problems);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let per_thread = files.len().div_ceil(threads).max(FILES_PER_THREAD);
    let mut parts: Vec<(Vec<DagFile>, Vec<Problem>)> = Vec::new();
    std::thread::scope(|scope| {
        let readers: Vec<_> = files.chunks(per_thread).map(|part| scope.spawn(|| load_all(part))).collect();
        parts.extend(readers.into_iter().map(|reader| match reader.join() {
            Ok(part) => part,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
    });
    for (mut dags, mut problems) in parts {
        bag.dags.append(&mut dags);
        bag.problems.append(&mut problems);
    }
    bag.refuse_namesakes();
    bag.problems.sort_by(|a, b| (&a.file, a.place, &a.what).cmp(&(&b.file, b.place, &b.what)));
    bag
}

/// The DAG files that [`load_path`] reads, in order; what cannot be listed is left out.
#[must_use]
pub fn files_of(path: &Path) -> Vec<PathBuf> {
    listed(path, &mut Vec::new())
}

fn listed(path: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let mut files = Vec::new();
    collect(path, 0, &mut files, problems);
    files.sort();
    files
}

fn load_all(files: &[PathBuf]) -> (Vec<DagFile>, Vec<Problem>) {
    let mut all = (Vec::new(), Vec::new());
    for file in files {
        let (mut dags, mut problems) = load_file(file);
        all.0.append(&mut dags);
        all.1.append(&mut problems);
    }
    all
}

/// Reads one file: its DAGs without problems, and what is wrong with the others.
#[must_use]
pub fn load_file(path: &Path) -> (Vec<DagFile>, Vec<Problem>) {
    let name = path.to_string_lossy().into_owned();
    let unreadable = |what: String, hint: Option<String>| {
        let problem = Problem { file: name.clone(), ..Problem::at(Place::default(), what) };
        (Vec::new(), vec![problem.maybe_hint(hint)])
    };
    let text = match read_text(path) {
        Ok(text) => text,
        Err((what, hint)) => return unreadable(what, hint),
    };
    let (mut dags, mut problems) = load_text(&text);
    for dag in &mut dags {
        path.clone_into(&mut dag.path);
    }
    for problem in &mut problems {
        problem.file.clone_from(&name);
    }
    (dags, problems)
}

fn read_text(path: &Path) -> Result<String, (String, Option<String>)> {
    let away = |error: std::io::Error| (format!("the file cannot be read: {error}"), None);
    let size = std::fs::metadata(path).map_err(away)?.len();
    if size > FILE_BYTES_MAX as u64 {
        let what = format!("the file has {} MiB, at most {} MiB are read", size >> 20, FILE_BYTES_MAX >> 20);
        return Err((what, Some("many alike tasks are one task with `expand`".to_owned())));
    }
    let bytes = std::fs::read(path).map_err(away)?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        (format!("the file is not UTF-8 text (line {line})"), Some("save it as UTF-8".to_owned()))
    })
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    let problem = |what: String| Problem {
        file: folder.to_string_lossy().into_owned(),
        ..Problem::at(Place::default(), what)
    };
    if depth > FOLDERS_DEPTH_MAX {
        problems.push(problem(format!("folders nest deeper than {FOLDERS_DEPTH_MAX} here")));
        return;
    }
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return problems.push(problem(format!("the folder cannot be read: {error}"))),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_yaml {
            files.push(path);
        } else if path.is_dir() {
            collect(&path, depth + 1, files, problems);
        }
    }
}

impl Bag {
    /// Of several DAGs of one name, the first is kept and the others are problems.
    pub fn refuse_namesakes(&mut self) {
        let mut seen: BTreeMap<String, (PathBuf, Place)> = BTreeMap::new();
        let problems = &mut self.problems;
        self.dags.retain(|dag| {
            let id = dag.dag.id.to_string();
            let Some((path, place)) = seen.get(&id) else {
                seen.insert(id, (dag.path.clone(), dag.place));
                return true;
            };
            let hint = format!("the other one is {}:{}", path.display(), place.line);
            let what = format!("two DAGs are called `{id}`");
            let problem =
                Problem { file: dag.path.to_string_lossy().into_owned(), ..Problem::at(dag.place, what) };
            problems.push(problem.hint(hint));
            false
        });
    }
}
