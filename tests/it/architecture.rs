//! The laws of the house, checked on the sources: who may import whom, what the core must not know, how
//! large a file may grow.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by floor. A room may use rooms of lower floors only.
const FLOORS: &[(&str, u32)] = &[
    ("core", 0),
    ("segment", 0),
    ("secret", 0),
    ("store", 1),
    ("data", 1),
    ("alerts", 1),
    ("report", 1),
    ("sim", 1),
    ("tasks", 2),
    ("dagbag", 3),
    ("control", 4),
    ("engine", 5),
    ("worker", 5),
    ("web", 5),
    ("config", 5),
    ("cli", 6),
];

/// What the core must not know, and why.
const CORE_BANS: &[(&str, &str)] = &[
    ("async ", "the core decides, it does not wait"),
    ("tokio", "the core does no IO"),
    ("sqlx", "the core knows no SQL"),
    ("serde", "no wire format may freeze the core's types"),
    ("HashMap", "its order is chance"),
    ("HashSet", "its order is chance"),
    ("std::fs", "the core does no IO"),
    ("std::env", "settings are arguments"),
    ("Utc::now", "time is an argument"),
    ("SystemTime", "time is an argument"),
    ("Instant::now", "time is an argument"),
    ("rand::", "chance is an argument"),
];

const FILE_LINES_MAX: usize = 500;

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 20, "the sources were not found under {}", root.display());
    paths
        .into_iter()
        .map(|p| (p.strip_prefix(&root).unwrap().to_owned(), fs::read_to_string(&p).unwrap()))
        .collect()
}

/// The code of a file: without its unit tests and without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(n, line)| (n + 1, line))
}

fn room(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn imports_go_down_only() {
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let here = room(&path);
        if matches!(here.as_str(), "lib" | "main") {
            continue;
        }
        let floor =
            *floors.get(here.as_str()).unwrap_or_else(|| panic!("`{here}` has no floor: add it to FLOORS"));
        for (line, text) in code(&text) {
            for (at, _) in text.match_indices("crate::") {
                let rest = &text[at + "crate::".len()..];
                let named: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(&other) = floors.get(named.as_str()) else { continue };
                if named != here && other >= floor {
                    broken.push(format!(
                        "src/{}:{line}: `{here}` (floor {floor}) uses `{named}` (floor {other})",
                        path.display()
                    ));
                }
            }
        }
    }
    assert!(
        broken.is_empty(),
        "imports go down only, rooms on one floor do not see each other:\n{}",
        broken.join("\n")
    );
}

#[test]
fn the_core_is_pure() {
    let mut broken = Vec::new();
    for (path, text) in sources().into_iter().filter(|(p, _)| room(p) == "core") {
        for (line, text) in code(&text) {
            for (word, why) in CORE_BANS {
                if text.contains(word) {
                    broken.push(format!("src/{}:{line}: `{word}`: {why}", path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn no_room_is_called_after_nothing() {
    for (path, _) in sources() {
        for part in &path {
            let name = part.to_str().unwrap().trim_end_matches(".rs");
            assert!(
                !["util", "utils", "common", "helpers", "misc", "types", "manager"].contains(&name),
                "src/{}: the name says nothing",
                path.display()
            );
        }
    }
}

#[test]
fn a_file_fits_in_a_head() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
        if lines > FILE_LINES_MAX {
            long.push(format!(
                "src/{}: {lines} lines without tests, at most {FILE_LINES_MAX}",
                path.display()
            ));
        }
    }
    assert!(long.is_empty(), "split them, if each half has a name:\n{}", long.join("\n"));
}
