//! Templates before anything runs: their syntax, the names they use, and whose outputs they read.

use std::sync::LazyLock;

use regex::Regex;

use super::params::ParamSpec;
use super::problem::{Place, Problem, did_you_mean, listed};
use super::yaml::{Node, Tree};
use crate::tasks::template::{self, NAMES, TemplateError, is_template};

/// A task that reads what another leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutputUse {
    /// What stands after `outputs.`, or between the quotes of `xcom_pull('…')`.
    pub(super) name: String,
    /// Whether `name` may go on with keys of the output.
    pub(super) dotted: bool,
    /// Where.
    pub(super) place: Place,
}

static PULLED: LazyLock<Regex> = LazyLock::new(|| {
    let text = r#"(?:xcom_pull\(\s*(?:task_ids\s*=\s*)?|\boutputs\s*\[\s*)['"]([^'"]+)['"]"#;
    Regex::new(text).expect("the constant is a regular expression")
});

/// Checks the templates of one task.
pub(super) struct References<'a> {
    /// The file's text.
    pub(super) source: &'a str,
    /// For messages, for instance ``task `load`: ``.
    pub(super) subject: &'a str,
    /// The DAG's parameters.
    pub(super) params: &'a ParamSpec,
    /// Whose outputs are read.
    pub(super) used: Vec<OutputUse>,
    /// What is wrong.
    pub(super) problems: Vec<Problem>,
}

impl References<'_> {
    /// Checks every text of `node`, at any depth.
    pub(super) fn check(&mut self, node: &Node) {
        match &node.tree {
            Tree::Scalar { text, .. } if is_template(text) => {
                self.judge(node, text, template::names_in(text))
            }
            Tree::Scalar { .. } => {}
            Tree::List(items) => items.iter().for_each(|item| self.check(item)),
            Tree::Mapping(entries) => entries.iter().for_each(|(_, value)| self.check(value)),
        }
    }

    /// Checks a condition, which may do without braces.
    pub(super) fn check_expression(&mut self, node: &Node) {
        match node.text() {
            Some(text) if !is_template(text) => self.judge(node, text, template::names_in_expression(text)),
            Some(_) | None => self.check(node),
        }
    }

    fn judge(&mut self, node: &Node, text: &str, names: Result<Vec<String>, TemplateError>) {
        let names = match names {
            Ok(names) => names,
            Err(error) => {
                let place = self.place_of_error(node, text, &error);
                let what = format!("{}the template cannot be read: {}", self.subject, error.message);
                self.problems.push(Problem::at(place, what));
                return;
            }
        };
        for found in PULLED.captures_iter(text) {
            let name = found[1].to_owned();
            let place = self.place_of(node, &name);
            self.used.push(OutputUse { name, dotted: false, place });
        }
        for name in &names {
            self.judge_name(node, name);
        }
    }

    fn judge_name(&mut self, node: &Node, name: &str) {
        let (first, rest) = name.split_once('.').unwrap_or((name, ""));
        match first {
            "outputs" if !rest.is_empty() => {
                let place = self.place_of(node, rest);
                self.used.push(OutputUse { name: rest.to_owned(), dotted: true, place });
            }
            "params" if !rest.is_empty() => {
                let param = rest.split('.').next().unwrap_or(rest);
                if !self.params.has(param) {
                    let declared = self.params.params.iter().map(|p| p.name.as_str());
                    let hint = did_you_mean(param, declared)
                        .unwrap_or_else(|| "declare it under the DAG's `params:`".to_owned());
                    let what =
                        format!("{}the template reads `params.{param}`, which is not declared", self.subject);
                    let place = self.place_of(node, &format!("params.{param}"));
                    self.problems.push(Problem::at(place, what).hint(hint));
                }
            }
            "conn" => {
                let what = format!("{}a template cannot read connections", self.subject);
                let hint = "name the connection in the task's own keys; its secrets never become text";
                let place = self.place_of(node, "conn");
                self.problems.push(Problem::at(place, what).hint(hint));
            }
            known if NAMES.contains(&known) => {}
            unknown => {
                let hint = did_you_mean(unknown, NAMES.iter().copied()).unwrap_or_else(|| {
                    format!("templates know {}", listed(NAMES.iter().copied()).replace(" or ", " and "))
                });
                let what = format!("{}the template names `{unknown}`, which does not exist", self.subject);
                self.problems.push(Problem::at(self.place_of(node, unknown), what).hint(hint));
            }
        }
    }

    /// Where `needle` stands in the scalar's own text in the file; the scalar's place if it cannot be found.
    fn place_of(&self, node: &Node, needle: &str) -> Place {
        let written = self.source.get(node.bytes.clone()).unwrap_or("");
        match written.find(needle) {
            Some(offset) => advance(node.place, &written[..offset], self.source, node.bytes.start),
            None => node.place,
        }
    }

    /// The line of the text that cannot be read, found again in the file.
    fn place_of_error(&self, node: &Node, text: &str, error: &TemplateError) -> Place {
        let Some(line) = text.lines().nth(error.line.saturating_sub(1) as usize) else { return node.place };
        let start = self.place_of(node, line.trim());
        let indent = line.chars().take_while(|c| c.is_whitespace()).count();
        let indent = u32::try_from(indent).unwrap_or(0);
        Place { column: start.column + error.column.saturating_sub(1 + indent), ..start }
    }
}

/// The place after `passed`, which begins at `start`. The parser may say that a block begins at its
/// indicator while its bytes begin there too, so columns are counted from the file's own line.
fn advance(start: Place, passed: &str, source: &str, offset: usize) -> Place {
    let lines = passed.matches('\n').count();
    if lines == 0 {
        let column = u32::try_from(passed.chars().count()).unwrap_or(0);
        return Place { column: start.column + column, ..start };
    }
    let end = offset + passed.len();
    let line_start = source[..end].rfind('\n').map_or(0, |at| at + 1);
    let column = source[line_start..end].chars().count() + 1;
    Place { line: start.line + u32::try_from(lines).unwrap_or(0), column: u32::try_from(column).unwrap_or(1) }
}
