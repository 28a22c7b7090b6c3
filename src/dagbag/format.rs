//! `mainspring fmt`: the same file in canonical words. Comments, quotes, order and line breaks stay as they
//! are: only accepted words are replaced where they stand, and blanks at line ends and at the end of the file
//! are removed (those of a long text belong to it).
//!
//! What a file means never changes: the result is read again and must have the same hashes.

use std::ops::Range;

use super::drafts::canonical;
use super::file::load_text;
use super::keys::{DAG_ALIASES, TASK_ALIASES};
use super::problem::Problem;
use super::schemas::SCHEMAS;
use super::yaml::{Node, Tree, documents};
use crate::tasks;

/// The text in canonical form.
///
/// # Errors
/// The text's problems, if it cannot be read as YAML or two words stand for one key: it stays as it is.
pub fn format_text(text: &str) -> Result<String, Vec<Problem>> {
    let (roots, mut problems) = documents(text);
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut blocks: Vec<Range<usize>> = Vec::new();
    for mut root in roots {
        long_texts(&root, text, &mut blocks);
        canonical(&mut root, DAG_ALIASES, &[], &mut problems);
        rename_tasks(&mut root, &mut problems);
        renamed(&root, text, &mut edits);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    edits.sort_by_key(|(bytes, _)| bytes.start);
    edits.dedup();
    let formatted = trimmed(text, &edits, &blocks);
    // A word that means something else in its place would be found here, and the file left alone.
    let hashes = |text: &str| load_text(text).0.into_iter().map(|file| file.dag.hash).collect::<Vec<_>>();
    if hashes(&formatted) == hashes(text) { Ok(formatted) } else { Ok(text.to_owned()) }
}

fn rename_tasks(parent: &mut Node, problems: &mut Vec<Problem>) {
    let Tree::Mapping(entries) = &mut parent.tree else { return };
    for (key, value) in entries {
        match (key.name.as_str(), &mut value.tree) {
            ("default_args", _) => canonical(value, TASK_ALIASES, &[], problems),
            ("tasks", Tree::List(items)) => {
                for task in items {
                    let kind =
                        ["type", "operator", "kind"].iter().find_map(|k| tasks::find(task.get(k)?.text()?));
                    let own = kind.map_or(&[][..], |kind| SCHEMAS.keys_of(kind.name));
                    canonical(task, TASK_ALIASES, own, problems);
                }
            }
            ("task_groups", Tree::List(items)) => {
                items.iter_mut().for_each(|group| rename_tasks(group, problems))
            }
            _ => {}
        }
    }
}

/// Keys whose word is another than the one that stands in the text.
fn renamed(node: &Node, text: &str, edits: &mut Vec<(Range<usize>, String)>) {
    match &node.tree {
        Tree::Scalar { .. } => {}
        Tree::List(items) => items.iter().for_each(|item| renamed(item, text, edits)),
        Tree::Mapping(entries) => {
            for (key, value) in entries {
                let written = text.get(key.bytes.clone()).unwrap_or("").trim_matches(['"', '\'']);
                let is_word = DAG_ALIASES.iter().chain(TASK_ALIASES).any(|(alias, _)| *alias == written);
                if is_word && written != key.name {
                    edits.push((key.bytes.clone(), key.name.clone()));
                }
                renamed(value, text, edits);
            }
        }
    }
}

/// Texts over several lines: blanks at the ends of their lines belong to them.
fn long_texts(node: &Node, text: &str, into: &mut Vec<Range<usize>>) {
    match &node.tree {
        Tree::Scalar { .. } => {
            if text.get(node.bytes.clone()).is_some_and(|written| written.contains('\n')) {
                into.push(node.bytes.clone());
            }
        }
        Tree::List(items) => items.iter().for_each(|item| long_texts(item, text, into)),
        Tree::Mapping(entries) => entries.iter().for_each(|(_, value)| long_texts(value, text, into)),
    }
}

fn trimmed(text: &str, edits: &[(Range<usize>, String)], blocks: &[Range<usize>]) -> String {
    let mut formatted = String::with_capacity(text.len());
    let mut edits = edits.iter().peekable();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        let mut at = start;
        while let Some((bytes, word)) = edits.next_if(|(bytes, _)| bytes.start < end) {
            formatted.push_str(&text[at..bytes.start]);
            formatted.push_str(word);
            at = bytes.end;
        }
        let rest = &text[at..end];
        let inside = blocks.iter().any(|block| block.start < end && end <= block.end);
        if inside {
            formatted.push_str(rest);
        } else {
            formatted.push_str(rest.trim_end_matches(['\n', '\r', ' ', '\t']));
            formatted.push('\n');
        }
        start = end;
    }
    let last_in_block = blocks.iter().any(|block| block.end >= text.trim_end().len());
    if !last_in_block {
        let length = formatted.trim_end().len();
        formatted.truncate(length);
        formatted.push('\n');
    }
    formatted
}
