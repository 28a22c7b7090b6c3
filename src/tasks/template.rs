//! Templates: what `{{ … }}` in a task's settings means when an attempt is made.
//!
//! MiniJinja, strict: an undefined name is an error. No file, clock or environment is within reach, and a
//! template's work is limited. Which tasks exist is not known here; the DAG bag checks names beforehand.
//!
//! # Names
//! `ds` (`2026-01-31`), `ds_nodash`, `ts` (RFC 3339), `ts_nodash`, `logical_date`, `data_interval_start`,
//! `data_interval_end` (RFC 3339 texts), `run_id`, `dag.dag_id`, `task.task_id`, `try_number`, `map_index`,
//! `map_item` (the element of `expand`), `params.*`, `var.*`, `outputs.<task>.<key>`, and
//! `ti.xcom_pull('task', key='return_value')`: that output, or without `key` all outputs of a task that left
//! no `return_value`.
//!
//! # Filters
//! Beside MiniJinja's own: `ds`, `ds_nodash`, `ts`, `ts_nodash`, `strftime('%Y/%m')`, and the arithmetic
//! `minutes(n)`, `hours(n)`, `days(n)`, `weeks(n)`, `months(n)` (a date stays a date: `{{ ds | days(-1) }}`).

use std::fmt;
use std::sync::{Arc, LazyLock};

use minijinja::value::{Enumerator, Kwargs, Object, Rest, Serde, from_args};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior};
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::core::ids::Timestamp;

mod filters;

/// How much work one template may do, in MiniJinja's units (an instruction, or some bytes of output).
const FUEL: u64 = 1_000_000;
/// How deep macros and blocks may nest.
const RECURSION_MAX: usize = 64;

/// Names that every template may use, as [`Scope`] fills them.
pub const NAMES: &[&str] = &[
    "ds",
    "ds_nodash",
    "ts",
    "ts_nodash",
    "logical_date",
    "data_interval_start",
    "data_interval_end",
    "run_id",
    "dag",
    "task",
    "ti",
    "try_number",
    "map_index",
    "map_item",
    "params",
    "var",
    "outputs",
    "triggering_events",
    "triggering_asset_events",
];

/// What templates of one attempt can see.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The DAG.
    pub dag_id: String,
    /// The task.
    pub task_id: String,
    /// The run.
    pub run_id: String,
    /// The moment the run stands for.
    pub logical_date: Timestamp,
    /// The span of data: from here …
    pub data_interval_start: Timestamp,
    /// … up to, not including, here.
    pub data_interval_end: Timestamp,
    /// This attempt, from 1.
    pub try_number: u32,
    /// From 0 for a mapped instance, -1 otherwise.
    pub map_index: i32,
    /// The element of `expand` this instance stands for; null if it is not mapped.
    pub map_item: Value,
    /// The run's parameters.
    pub params: Map<String, Value>,
    /// Variables of the installation.
    pub vars: Map<String, Value>,
    /// What upstream tasks left, by task id.
    pub outputs: Map<String, Value>,
    /// The events that started the run: `triggering_events` (a list) and `triggering_asset_events` (lists by asset),
    /// as far as there are some.
    pub triggers: Map<String, Value>,
}

/// Why a template could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// The key that holds it, from the task's mapping down (`k.max`); empty if it stands alone.
    pub key: String,
    /// The line within the text, from 1.
    pub line: u32,
    /// The column within that line, from 1, in characters.
    pub column: u32,
    /// What is wrong, lower case, no full stop.
    pub message: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "template, line {} column {}: {}", self.line, self.column, self.message)
        } else {
            write!(f, "`{}`, line {} column {}: {}", self.key, self.line, self.column, self.message)
        }
    }
}

impl std::error::Error for TemplateError {}

impl TemplateError {
    fn new(key: &str, text: &str, error: &Error) -> Self {
        Self::within(key, text, text, error)
    }

    /// As `new`, for an error of `part`, which stands in `text`.
    fn within(key: &str, text: &str, part: &str, error: &Error) -> Self {
        let offset = error.range().map_or(0, |range| range.start.min(part.len()));
        let offset = offset + text.find(part).unwrap_or(0);
        let (line, column) = line_and_column(text, offset);
        let kind = error.kind();
        let message = if kind == ErrorKind::OutOfFuel {
            "the template does too much work".to_owned()
        } else {
            error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}"))
        };
        Self { key: key.to_owned(), line, column, message }
    }
}

/// Whether a text is a template at all; one that is not costs nothing more.
#[must_use]
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// The expression of a text that is one `{{ … }}` and nothing else.
fn sole_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    let inner = inner.strip_suffix('-').unwrap_or(inner);
    (!inner.contains("{{") && !inner.contains("}}") && !inner.contains("{%")).then_some(inner)
}

/// The names a template reads from its [`Scope`], with what follows after dots (`params.limit`), sorted.
///
/// # Errors
/// [`TemplateError`] if it cannot be read, or uses a filter or test that does not exist.
pub fn names_in(text: &str) -> Result<Vec<String>, TemplateError> {
    let wrong = |e: &Error| TemplateError::new("", text, e);
    let template = ENGINE.template_from_str(text).map_err(|e| wrong(&e))?;
    known_filters(text, &MARKED)?;
    let mut names: Vec<String> = template.undeclared_variables(true).into_iter().collect();
    names.retain(|name| !is_function(name));
    names.sort_unstable();
    Ok(names)
}

/// As [`names_in`] for an expression without braces, such as `when:`.
///
/// # Errors
/// [`TemplateError`] if it cannot be read.
pub fn names_in_expression(text: &str) -> Result<Vec<String>, TemplateError> {
    let expression = ENGINE.compile_expression(text).map_err(|e| TemplateError::new("", text, &e))?;
    known_filters(text, &WHOLE)?;
    let mut names: Vec<String> = expression.undeclared_variables(true).into_iter().collect();
    names.retain(|name| !is_function(name));
    names.sort_unstable();
    Ok(names)
}

/// What stands between braces, and a whole text.
static MARKED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?s)\{[{%].*?[%}]\}").expect("the constant is a regular expression"));
static WHOLE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?s)^.*$").expect("the constant is a regular expression"));
/// A filter, or a quoted text that may look like one.
static FILTER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"'[^']*'|"[^"]*"|\|\s*(?<name>[A-Za-z_][A-Za-z0-9_]*)"#)
        .expect("the constant is a regular expression")
});

/// The engine would miss a filter only when it is used; authors want to know before.
fn known_filters(text: &str, parts: &Regex) -> Result<(), TemplateError> {
    for part in parts.find_iter(text) {
        for name in FILTER.captures_iter(part.as_str()).filter_map(|found| found.name("name")) {
            let tried = ENGINE.empty_state().apply_filter(name.as_str(), &[]);
            if tried.is_err_and(|error| error.kind() == ErrorKind::UnknownFilter) {
                let (line, column) = line_and_column(text, part.start() + name.start());
                let message = format!("there is no filter `{}`", name.as_str());
                return Err(TemplateError { key: String::new(), line, column, message });
            }
        }
    }
    Ok(())
}

/// Both from 1, the column in characters.
fn line_and_column(text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

fn is_function(name: &str) -> bool {
    ENGINE.globals().any(|(global, _)| global == name)
}

/// Renders the templates of one attempt.
pub struct Renderer {
    context: minijinja::Value,
}

impl Renderer {
    /// A renderer that sees `scope`.
    #[must_use]
    pub fn new(scope: &Scope) -> Self {
        let date = scope.logical_date.to_utc().unwrap_or_default();
        let outputs = nested(&scope.outputs);
        let ti = minijinja::Value::from_object(TaskInstance {
            outputs: minijinja::Value::from(Serde(&scope.outputs)),
            facts: minijinja::Value::from(Serde(json!({
                "dag_id": scope.dag_id, "task_id": scope.task_id, "run_id": scope.run_id,
                "try_number": scope.try_number, "map_index": scope.map_index,
            }))),
        });
        let plain = minijinja::Value::from(Serde(json!({
            "ds": date.format("%Y-%m-%d").to_string(),
            "ds_nodash": date.format("%Y%m%d").to_string(),
            "ts": scope.logical_date.to_string(),
            "ts_nodash": date.format("%Y%m%dT%H%M%S").to_string(),
            "logical_date": scope.logical_date.to_string(),
            "data_interval_start": scope.data_interval_start.to_string(),
            "data_interval_end": scope.data_interval_end.to_string(),
            "run_id": scope.run_id,
            "dag": {"dag_id": scope.dag_id},
            "task": {"task_id": scope.task_id},
            "try_number": scope.try_number,
            "map_index": scope.map_index,
            "map_item": scope.map_item,
            "params": scope.params,
            "var": scope.vars,
            "outputs": outputs,
            "triggering_events": scope.triggers.get("triggering_events").unwrap_or(&json!([])),
            "triggering_asset_events": scope.triggers.get("triggering_asset_events").unwrap_or(&json!({})),
        })));
        Self { context: minijinja::context! { ti, ..plain } }
    }

    /// Renders one text. A text that is one `{{ … }}` and nothing else keeps the type of its value.
    ///
    /// # Errors
    /// [`TemplateError`] without a key.
    pub fn render_text(&self, text: &str) -> Result<Value, TemplateError> {
        if !is_template(text) {
            return Ok(Value::String(text.to_owned()));
        }
        if let Some(inner) = sole_expression(text)
            && let Ok(expression) = ENGINE.compile_expression(inner)
        {
            let value = expression.eval(self.context.clone()).and_then(defined);
            let value = value.map_err(|e| TemplateError::within("", text, inner, &e))?;
            return serde_json::to_value(&value).map_err(|e| TemplateError {
                key: String::new(),
                line: 1,
                column: 1,
                message: format!("the value cannot be written as JSON: {e}"),
            });
        }
        let rendered = ENGINE.render_str(text, self.context.clone());
        rendered.map(Value::String).map_err(|e| TemplateError::new("", text, &e))
    }

    /// Renders every text of `value`, at any depth. What stands below one of `verbatim` (top-level keys) is
    /// left as it is; so are the names of keys.
    ///
    /// # Errors
    /// [`TemplateError`] with the key that holds the template.
    pub fn render_value(&self, value: &Value, verbatim: &[&str]) -> Result<Value, TemplateError> {
        self.render_at(value, verbatim, &mut Vec::new())
    }

    fn render_at(
        &self,
        value: &Value,
        verbatim: &[&str],
        path: &mut Vec<String>,
    ) -> Result<Value, TemplateError> {
        Ok(match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
            Value::String(text) => {
                self.render_text(text).map_err(|e| TemplateError { key: path.join("."), ..e })?
            }
            Value::Array(items) => {
                let mut rendered = Vec::with_capacity(items.len());
                for (place, item) in items.iter().enumerate() {
                    path.push(place.to_string());
                    rendered.push(self.render_at(item, &[], path)?);
                    path.pop();
                }
                Value::Array(rendered)
            }
            Value::Object(map) => {
                let mut rendered = Map::with_capacity(map.len());
                for (key, item) in map {
                    path.push(key.clone());
                    let item = if verbatim.contains(&key.as_str()) {
                        item.clone()
                    } else {
                        self.render_at(item, &[], path)?
                    };
                    path.pop();
                    rendered.insert(key.clone(), item);
                }
                Value::Object(rendered)
            }
        })
    }

    /// Judges an expression such as `params.full and ds > '2026-01-01'`; braces around it are allowed.
    ///
    /// # Errors
    /// [`TemplateError`] without a key.
    pub fn eval_bool(&self, expression: &str) -> Result<bool, TemplateError> {
        let inner = sole_expression(expression).unwrap_or(expression);
        let value = ENGINE
            .compile_expression(inner)
            .and_then(|compiled| compiled.eval(self.context.clone()))
            .and_then(defined)
            .map_err(|e| TemplateError::within("when", expression, inner, &e))?;
        Ok(match value.as_str().map(str::trim) {
            Some("false" | "False" | "") => false,
            Some(_) | None => value.is_true(),
        })
    }
}

fn defined(value: minijinja::Value) -> Result<minijinja::Value, Error> {
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "the expression names nothing that exists"));
    }
    Ok(value)
}

/// The outputs by task id, and those of `group.task` also as `group` → `task`, so that
/// `outputs.group.task.key` reads as it is written.
fn nested(outputs: &Map<String, Value>) -> Value {
    let mut all = outputs.clone();
    for (name, value) in outputs {
        let Some((groups, task)) = name.rsplit_once('.') else { continue };
        let mut place = &mut all;
        for group in groups.split('.') {
            let entry = place.entry(group).or_insert_with(|| json!({}));
            if !entry.is_object() {
                *entry = json!({});
            }
            place = entry.as_object_mut().expect("it was made an object above");
        }
        place.insert(task.to_owned(), value.clone());
    }
    Value::Object(all)
}

/// `ti` in templates.
#[derive(Debug)]
struct TaskInstance {
    outputs: minijinja::Value,
    facts: minijinja::Value,
}

impl Object for TaskInstance {
    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        self.facts.get_item(key).ok().filter(|value| !value.is_undefined())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        args: &[minijinja::Value],
    ) -> Result<minijinja::Value, Error> {
        if method != "xcom_pull" {
            return Err(Error::new(ErrorKind::UnknownMethod, format!("`ti` has no method `{method}`")));
        }
        let (positional, named): (Rest<minijinja::Value>, Kwargs) = from_args(args)?;
        let task = match positional.first() {
            Some(task) => task.clone(),
            None => named.get::<minijinja::Value>("task_ids")?,
        };
        let key = match positional.get(1) {
            Some(key) => Some(key.to_string()),
            None => named.get::<Option<String>>("key")?,
        };
        let left = self.outputs.get_item(&task)?;
        if left.is_undefined() {
            let text = format!("no outputs of a task `{task}`; is it upstream of this one?");
            return Err(Error::new(ErrorKind::UndefinedError, text));
        }
        let value = left.get_attr(key.as_deref().unwrap_or("return_value"))?;
        match (value.is_undefined(), key) {
            (false, _) => Ok(value),
            (true, None) => Ok(left),
            (true, Some(key)) => {
                Err(Error::new(ErrorKind::UndefinedError, format!("task `{task}` left no output `{key}`")))
            }
        }
    }
}

static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_fuel(Some(FUEL));
    engine.set_recursion_limit(RECURSION_MAX);
    engine.set_debug(true);
    filters::add_to(&mut engine);
    engine
});

#[cfg(test)]
mod tests;
