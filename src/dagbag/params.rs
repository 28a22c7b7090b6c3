//! Parameters of a DAG: their declarations, and the values a run gets.

use regex::Regex;
use serde_json::{Map, Value};

use super::problem::{Place, Problem, did_you_mean, listed};
use super::yaml::{Node, Tree};

/// The parameters a DAG declares, in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct ParamSpec {
    /// Each one.
    pub params: Vec<Param>,
}

/// One parameter.
#[derive(Debug, Clone)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its value if a run gives none; absent: a run must give one.
    pub default: Option<Value>,
    /// What its values must be.
    pub kind: Option<ParamType>,
    /// The only values allowed; empty: any.
    pub choices: Vec<Value>,
    /// The least number.
    pub minimum: Option<f64>,
    /// The greatest number.
    pub maximum: Option<f64>,
    /// What a text must match.
    pub pattern: Option<Regex>,
    /// For people.
    pub description: Option<String>,
}

/// What the values of a parameter must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamType {
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A list.
    Array,
    /// A mapping.
    Object,
}

const TYPES: &[(&str, ParamType)] = &[
    ("string", ParamType::String),
    ("integer", ParamType::Integer),
    ("number", ParamType::Number),
    ("boolean", ParamType::Boolean),
    ("array", ParamType::Array),
    ("object", ParamType::Object),
];
const KEYS: &[&str] = &["type", "default", "enum", "minimum", "maximum", "pattern", "description"];

impl ParamSpec {
    /// Reads `params:`; what is wrong goes to `problems`.
    pub(super) fn read(node: Option<&Node>, problems: &mut Vec<Problem>) -> Self {
        let Some(node) = node else { return Self::default() };
        if !matches!(node.tree, Tree::Mapping(_)) {
            let what = format!("`params` is {}", super::shape::shown(node));
            problems.push(Problem::at(node.place, what).expected("a mapping of names to defaults"));
        }
        let params =
            node.entries().iter().map(|(key, node)| Param::read(&key.name, node, problems)).collect();
        Self { params }
    }

    /// Whether there is one called `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.params.iter().any(|param| param.name == name)
    }

    /// The values of a run: those given, and defaults for the rest.
    ///
    /// # Errors
    /// Every unknown name, missing value and value that does not fit; without places, for no file says them.
    pub fn resolve(&self, given: &Map<String, Value>) -> Result<Map<String, Value>, Vec<Problem>> {
        let nowhere = Place::default();
        let mut problems = Vec::new();
        for name in given.keys().filter(|name| !self.has(name)) {
            let names = self.params.iter().map(|param| param.name.as_str());
            let hint = did_you_mean(name, names.clone()).unwrap_or_else(|| {
                if self.params.is_empty() {
                    "the DAG declares none".to_owned()
                } else {
                    format!("the DAG declares {}", listed(names).replace(" or ", " and "))
                }
            });
            problems.push(Problem::at(nowhere, format!("unknown parameter `{name}`")).hint(hint));
        }
        let mut values = Map::new();
        for param in &self.params {
            match given
                .get(&param.name)
                .map(|value| param.as_declared(value))
                .or_else(|| param.default.clone())
            {
                None => {
                    let what = format!("the parameter `{}` has no default and was not given", param.name);
                    problems.push(Problem::at(nowhere, what));
                }
                Some(value) => {
                    if let Some(expected) = param.mismatch(&value) {
                        let what = format!("the parameter `{}` is `{}`", param.name, bare(&value));
                        problems.push(Problem::at(nowhere, what).expected(expected));
                    }
                    values.insert(param.name.clone(), value);
                }
            }
        }
        if problems.is_empty() { Ok(values) } else { Err(problems) }
    }
}

impl Param {
    fn read(name: &str, node: &Node, problems: &mut Vec<Problem>) -> Self {
        let mut param = Self {
            name: name.to_owned(),
            default: None,
            kind: None,
            choices: Vec::new(),
            minimum: None,
            maximum: None,
            pattern: None,
            description: None,
        };
        let declared =
            node.get("type").is_some() || node.get("default").is_some() || node.get("enum").is_some();
        if !declared {
            param.default = Some(node.to_json());
            return param;
        }
        for (key, value) in node.entries() {
            let json = value.to_json();
            let mut wrong = |expected: &str| {
                let what = format!("parameter `{name}`: `{}` is {}", key.name, super::shape::shown(value));
                problems.push(Problem::at(value.place, what).expected(expected.to_owned()));
            };
            match key.name.as_str() {
                "default" => param.default = Some(json),
                "type" => match TYPES.iter().find(|(name, _)| json == *name) {
                    Some((_, kind)) => param.kind = Some(*kind),
                    None => wrong(&listed(TYPES.iter().map(|(name, _)| *name))),
                },
                "enum" => match json.as_array() {
                    Some(choices) if !choices.is_empty() => param.choices.clone_from(choices),
                    Some(_) | None => wrong("a list of values"),
                },
                "minimum" | "maximum" => match json.as_f64() {
                    Some(limit) if key.name == "minimum" => param.minimum = Some(limit),
                    Some(limit) => param.maximum = Some(limit),
                    None => wrong("a number"),
                },
                "pattern" => match json.as_str().map(Regex::new) {
                    Some(Ok(pattern)) => param.pattern = Some(pattern),
                    Some(Err(_)) | None => wrong("a regular expression"),
                },
                "description" => match json.as_str() {
                    Some(text) => param.description = Some(text.to_owned()),
                    None => wrong("a text"),
                },
                other => {
                    let hint = did_you_mean(other, KEYS.iter().copied()).unwrap_or_else(|| {
                        format!("known keys are {}", listed(KEYS.iter().copied()).replace(" or ", " and "))
                    });
                    let what = format!("parameter `{name}`: unknown key `{other}`");
                    problems.push(Problem::at(key.place, what).hint(hint));
                }
            }
        }
        if let Some(default) = &param.default
            && let Some(expected) = param.mismatch(default)
        {
            let place = node.along(["default"]).place;
            let what = format!(
                "parameter `{name}`: its default `{}` does not fit its own declaration",
                bare(default)
            );
            problems.push(Problem::at(place, what).expected(expected));
        }
        param
    }

    /// A number or flag given for a text parameter is that text: a command line has only texts.
    fn as_declared(&self, value: &Value) -> Value {
        match (self.kind, value) {
            (Some(ParamType::String), Value::Number(_) | Value::Bool(_)) => Value::String(value.to_string()),
            _ => value.clone(),
        }
    }

    /// What was expected, if `value` does not fit.
    fn mismatch(&self, value: &Value) -> Option<String> {
        let fits = match self.kind {
            None => true,
            Some(ParamType::String) => value.is_string(),
            Some(ParamType::Integer) => value.is_i64() || value.is_u64(),
            Some(ParamType::Number) => value.is_number(),
            Some(ParamType::Boolean) => value.is_boolean(),
            Some(ParamType::Array) => value.is_array(),
            Some(ParamType::Object) => value.is_object(),
        };
        if !fits {
            return Some(self.kind.map_or("another value", ParamType::in_words).to_owned());
        }
        if !self.choices.is_empty() && !self.choices.contains(value) {
            let names: Vec<String> = self.choices.iter().map(bare).collect();
            return Some(listed(names.iter().map(String::as_str)));
        }
        if let Some(number) = value.as_f64() {
            if let Some(minimum) = self.minimum.filter(|m| number < *m) {
                return Some(format!("at least {minimum}"));
            }
            if let Some(maximum) = self.maximum.filter(|m| number > *m) {
                return Some(format!("at most {maximum}"));
            }
        }
        let pattern = self.pattern.as_ref()?;
        let text = value.as_str()?;
        (!pattern.is_match(text)).then(|| format!("a text that matches `{pattern}`"))
    }
}

impl ParamType {
    fn in_words(self) -> &'static str {
        match self {
            Self::String => "a text",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Array => "a list",
            Self::Object => "a mapping",
        }
    }
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
