//! Compares what an author wrote with a JSON Schema, and reports everything that does not fit, each where it
//! stands. A template is accepted wherever something else than a text is wanted: it is rendered before use.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::problem::{Problem, did_you_mean, listed};
use super::schemas::Schemas;
use super::yaml::{Node, Tree, plain};
use crate::tasks::template::is_template;

mod words;

pub(super) use words::shown;
use words::{branches_of, shown_path};

/// Something that does not fit.
struct Misfit {
    /// The topmost key it is below.
    top: Option<String>,
    /// Whether only a word is unknown or missing: the reader may accept it by another name.
    word: bool,
    problem: Problem,
}

/// One comparison under way.
pub(super) struct Shape<'a> {
    schemas: &'a Schemas,
    /// Whose keys these are, for instance ``task `load`: ``.
    subject: &'a str,
    /// Keys that are right in this place though the schema does not name them: for hints only.
    also: &'a [String],
    problems: Vec<Misfit>,
    /// Whether a template stood where something else than a text is wanted.
    pub(super) dynamic: bool,
}

impl<'a> Shape<'a> {
    pub(super) fn new(schemas: &'a Schemas, subject: &'a str, also: &'a [String]) -> Self {
        Self { schemas, subject, also, problems: Vec::new(), dynamic: false }
    }

    /// What does not fit, and the topmost keys that are to blame: without them the value can be read.
    pub(super) fn done(self) -> (Vec<Problem>, BTreeSet<String>) {
        let (keys, problems): (Vec<_>, Vec<_>) =
            self.problems.into_iter().map(|m| (m.top, m.problem)).unzip();
        (problems, keys.into_iter().flatten().collect())
    }

    /// Whether everything fits but for words that the schema does not know or misses.
    pub(super) fn only_words(&self) -> bool {
        self.problems.iter().all(|misfit| misfit.word)
    }

    /// Whether everything fits.
    pub(super) fn fits(&self) -> bool {
        self.problems.is_empty()
    }

    /// Takes back all problems: the reader accepts these words.
    pub(super) fn forgive(&mut self) {
        self.problems.clear();
    }

    fn push(&mut self, path: &[String], problem: Problem) {
        self.problems.push(Misfit { top: path.first().cloned(), word: false, problem });
    }

    fn push_word(&mut self, path: &[String], problem: Problem) {
        self.problems.push(Misfit { top: path.first().cloned(), word: true, problem });
    }

    /// Compares `node` with `schema`. Answers its value, with a stand-in for every template whose type must
    /// be another than text.
    pub(super) fn read(&mut self, node: &Node, schema: &Value) -> Value {
        self.walk(node, schema, &mut Vec::new())
    }

    fn walk(&mut self, node: &Node, schema: &Value, path: &mut Vec<String>) -> Value {
        let outer = schema;
        let schema = self.schemas.resolve(schema);
        if let Tree::Scalar { text, .. } = &node.tree
            && is_template(text)
        {
            if self.takes_text(schema) {
                return Value::String(text.clone());
            }
            self.dynamic = true;
            return self.stand_in(schema, text);
        }
        if let Some(branches) = branches_of(schema) {
            return self.one_of(node, outer, branches, path);
        }
        let Some(object) = schema.as_object() else { return node.to_json() };
        match &node.tree {
            Tree::Mapping(_) if self.allows(schema, "object") => self.mapping(node, schema, path),
            Tree::List(items) if self.allows(schema, "array") => self.list(node, items, schema, path),
            Tree::Scalar { text, quoted } => {
                let value = if *quoted { Value::String(text.clone()) } else { plain(text) };
                if object.contains_key("enum") || object.contains_key("const") {
                    self.choice(node, &value, outer, path);
                } else if self.allows(schema, type_of(&value)) || integral(&value, schema) {
                    self.bounds(node, &value, schema, path);
                } else {
                    self.wrong(node, outer, path);
                }
                value
            }
            Tree::Mapping(_) | Tree::List(_) => {
                self.wrong(node, outer, path);
                node.to_json()
            }
        }
    }

    fn allows(&self, schema: &Value, name: &str) -> bool {
        match schema.get("type") {
            None => !schema.get("enum").is_some_and(|_| matches!(name, "object" | "array")),
            Some(Value::String(one)) => one == name || (one == "number" && name == "integer"),
            Some(Value::Array(several)) => {
                several.iter().any(|t| t == name || (t == "number" && name == "integer"))
            }
            Some(_) => true,
        }
    }

    fn mapping(&mut self, node: &Node, schema: &Value, path: &mut Vec<String>) -> Value {
        let properties = self.schemas.properties(schema);
        let mut object = Map::with_capacity(node.entries().len());
        let rest = schema.get("additionalProperties").or_else(|| schema.get("unevaluatedProperties"));
        for (key, value) in node.entries() {
            path.push(key.name.clone());
            let known = properties.iter().find(|(name, _)| *name == key.name).map(|(_, schema)| *schema);
            let read = match (known, rest) {
                (Some(schema), _) => self.walk(value, schema, path),
                (None, Some(Value::Bool(false))) => {
                    let names: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
                    let also = if path.len() == 1 { self.also } else { &[] };
                    self.unknown_key(&key.name, key.place, path, &names, also);
                    value.to_json()
                }
                (None, Some(schema @ Value::Object(_))) => self.walk(value, schema, path),
                (None, _) => value.to_json(),
            };
            path.pop();
            object.insert(key.name.clone(), read);
        }
        for required in self.schemas.required(schema) {
            if node.get(required).is_none() {
                let within = path.last().map_or_else(String::new, |_| format!(" in `{}`", path.join(".")));
                let what = format!("{}the key `{required}` is missing{within}", self.subject);
                self.push_word(path, Problem::at(node.place, what));
            }
        }
        Value::Object(object)
    }

    fn unknown_key(
        &mut self,
        name: &str,
        place: super::problem::Place,
        path: &[String],
        known: &[&str],
        also: &[String],
    ) {
        let above = &path[..path.len() - 1];
        let within = if above.is_empty() { String::new() } else { format!(" in `{}`", above.join(".")) };
        let what = format!("{}unknown key `{name}`{within}", self.subject);
        let near = did_you_mean(name, known.iter().copied().chain(also.iter().map(String::as_str)));
        let hint = near.unwrap_or_else(|| {
            if known.is_empty() {
                "no keys are known here".to_owned()
            } else {
                format!("known keys are {}", listed(known.iter().copied()).replace(" or ", " and "))
            }
        });
        self.push_word(path, Problem::at(place, what).hint(hint));
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &Value, path: &mut Vec<String>) -> Value {
        let each = schema.get("items");
        let first = schema.get("prefixItems").and_then(Value::as_array);
        let mut read = Vec::with_capacity(items.len());
        for (place, item) in items.iter().enumerate() {
            path.push(place.to_string());
            let schema = first.and_then(|first| first.get(place)).or(each);
            read.push(schema.map_or_else(|| item.to_json(), |schema| self.walk(item, schema, path)));
            path.pop();
        }
        let count = items.len() as u64;
        let at_least = schema.get("minItems").and_then(Value::as_u64).filter(|least| count < *least);
        let at_most = schema.get("maxItems").and_then(Value::as_u64).filter(|most| count > *most);
        for (limit, word) in [(at_least, "least"), (at_most, "most")] {
            if let Some(limit) = limit {
                let what = format!("{}{} has {count} items", self.subject, shown_path(path));
                self.push(path, Problem::at(node.place, what).expected(format!("at {word} {limit}")));
            }
        }
        Value::Array(read)
    }

    fn choice(&mut self, node: &Node, value: &Value, schema: &Value, path: &[String]) {
        let inner = self.schemas.resolve(schema);
        let fits = match (inner.get("enum").and_then(Value::as_array), inner.get("const")) {
            (Some(choices), _) => choices.contains(value),
            (None, Some(only)) => only == value,
            (None, None) => true,
        };
        if !fits {
            let before = self.problems.len();
            self.wrong(node, schema, path);
            self.problems[before..].iter_mut().for_each(|misfit| misfit.word = node.text().is_some());
        }
    }

    fn bounds(&mut self, node: &Node, value: &Value, schema: &Value, path: &[String]) {
        if let Some(number) = value.as_f64() {
            let limit = |key: &str| schema.get(key).and_then(Value::as_f64);
            let outside = [
                limit("minimum").filter(|m| number < *m).map(|m| format!("at least {m}")),
                limit("maximum").filter(|m| number > *m).map(|m| format!("at most {m}")),
                limit("exclusiveMinimum").filter(|m| number <= *m).map(|m| format!("more than {m}")),
                limit("exclusiveMaximum").filter(|m| number >= *m).map(|m| format!("less than {m}")),
            ];
            for expected in outside.into_iter().flatten() {
                self.unfit(node, path, expected, None);
            }
        }
        if let Some(text) = value.as_str() {
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                && self.schemas.pattern(pattern).is_some_and(|regex| !regex.is_match(text))
            {
                let expected = self.expected(schema);
                self.unfit(node, path, expected, None);
            }
            let least = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0);
            if (text.chars().count() as u64) < least {
                self.unfit(node, path, format!("at least {least} characters"), None);
            }
        }
    }

    /// `anyOf` and `oneOf`: the first branch that fits; else the problems of the one that was meant.
    fn one_of(&mut self, node: &Node, outer: &Value, branches: &[Value], path: &mut Vec<String>) -> Value {
        let (before, dynamic) = (self.problems.len(), self.dynamic);
        let mut failed: Vec<(i64, Vec<Misfit>)> = Vec::new();
        for branch in branches {
            let value = self.walk(node, branch, path);
            let problems = self.problems.split_off(before);
            if problems.is_empty() {
                return value;
            }
            self.dynamic = dynamic;
            failed.push((self.likeness(node, self.schemas.resolve(branch)), problems));
        }
        if let Some(tag) = self.tag_of(node, branches)
            && !self.tag_fits(node, &tag, path)
        {
            return node.to_json();
        }
        let best = failed.into_iter().reduce(|best, next| if next.0 > best.0 { next } else { best });
        match best {
            Some((likeness, problems)) if likeness > 0 => self.problems.extend(problems),
            Some((_, problems)) => {
                let word = problems.iter().all(|misfit| misfit.word);
                self.wrong(node, outer, path);
                self.problems[before..].iter_mut().for_each(|misfit| misfit.word = word);
            }
            None => self.wrong(node, outer, path),
        }
        node.to_json()
    }

    /// The key whose value tells the branches apart, with its values, if every mapping among them has one.
    fn tag_of(&self, node: &Node, branches: &[Value]) -> Option<(String, Vec<String>)> {
        if !matches!(node.tree, Tree::Mapping(_)) {
            return None;
        }
        let tags: Vec<Vec<(&str, &str)>> = branches
            .iter()
            .filter(|branch| has_keys(self.schemas.resolve(branch)))
            .map(|branch| {
                let all = self.schemas.properties(branch).into_iter();
                all.filter_map(|(name, schema)| Some((name, schema.get("const")?.as_str()?))).collect()
            })
            .collect();
        let (name, _) = tags.first()?.first()?;
        let values: Option<Vec<String>> = tags
            .iter()
            .map(|tags| tags.iter().find(|(tag, _)| tag == name).map(|(_, value)| (*value).to_owned()))
            .collect();
        Some(((*name).to_owned(), values?))
    }

    /// Whether the tag names a branch; if not, that is the one thing to say.
    fn tag_fits(
        &mut self,
        node: &Node,
        (tag, values): &(String, Vec<String>),
        path: &mut Vec<String>,
    ) -> bool {
        let expected = listed(values.iter().map(String::as_str));
        let Some(found) = node.get(tag) else {
            let what = format!("{}the key `{tag}` is missing in {}", self.subject, shown_path(path));
            self.push_word(path, Problem::at(node.place, what).expected(expected));
            return false;
        };
        let fits = found.text().is_some_and(|text| values.iter().any(|value| value == text));
        if !fits {
            let near = found.text().and_then(|text| did_you_mean(text, values.iter().map(String::as_str)));
            path.push(tag.clone());
            let what = format!("{}{} is {}", self.subject, shown_path(path), shown(found));
            self.push_word(path, Problem::at(found.place, what).expected(expected).maybe_hint(near));
            path.pop();
        }
        fits
    }

    /// How much `node` looks as if this branch was meant; 0 if not at all.
    fn likeness(&self, node: &Node, branch: &Value) -> i64 {
        if let Some(inner) = branches_of(branch) {
            let likeness = inner.iter().map(|branch| self.likeness(node, self.schemas.resolve(branch)));
            return likeness.max().unwrap_or(0);
        }
        match &node.tree {
            Tree::Mapping(entries) if self.allows(branch, "object") => {
                let properties = self.schemas.properties(branch);
                let mut likeness = 0;
                for (key, value) in entries {
                    let Some((_, schema)) = properties.iter().find(|(name, _)| *name == key.name) else {
                        continue;
                    };
                    likeness += 2;
                    let schema = self.schemas.resolve(schema);
                    if let Some(only) = schema.get("const") {
                        likeness += if *only == value.to_json() { 100 } else { -100 };
                    }
                }
                likeness
            }
            Tree::List(_) if self.allows(branch, "array") && branch.get("type").is_some() => 1,
            Tree::Mapping(_) | Tree::List(_) | Tree::Scalar { .. } => 0,
        }
    }

    fn wrong(&mut self, node: &Node, schema: &Value, path: &[String]) {
        let expected = self.expected(schema);
        let hint = self.hint_for(node, schema);
        self.unfit(node, path, expected, hint);
    }

    fn unfit(&mut self, node: &Node, path: &[String], expected: String, hint: Option<String>) {
        let what = format!("{}{} is {}", self.subject, shown_path(path), shown(node));
        self.push(path, Problem::at(node.place, what).expected(expected).maybe_hint(hint));
    }

    /// Whether any text fits, so that a template is just a text.
    fn takes_text(&self, schema: &Value) -> bool {
        let schema = self.schemas.resolve(schema);
        if let Some(branches) = branches_of(schema) {
            return branches.iter().any(|branch| self.takes_text(branch));
        }
        let free = ["enum", "const", "pattern"].iter().all(|key| schema.get(*key).is_none());
        free && self.allows(schema, "string")
    }

    /// A value that fits, in place of a template that is not rendered yet.
    fn stand_in(&self, schema: &Value, text: &str) -> Value {
        let schema = self.schemas.resolve(schema);
        if let Some(value) = schema
            .get("const")
            .or_else(|| schema.pointer("/enum/0"))
            .or_else(|| schema.pointer("/examples/0"))
        {
            return value.clone();
        }
        if let Some(branches) = branches_of(schema) {
            let branch = branches.iter().find(|b| b.get("type").is_none_or(|t| t != "null"));
            return branch.map_or(Value::Null, |branch| self.stand_in(branch, text));
        }
        if self.allows(schema, "integer") {
            let least = schema.get("minimum").cloned();
            return least.filter(|m| m.as_f64().is_some_and(|m| m >= 1.0)).unwrap_or_else(|| Value::from(1));
        }
        for (name, value) in [("boolean", Value::Bool(true)), ("array", Value::Array(Vec::new()))] {
            if self.allows(schema, name) {
                return value;
            }
        }
        if self.allows(schema, "object") { Value::Object(Map::new()) } else { Value::String(text.to_owned()) }
    }
}

fn has_keys(schema: &Value) -> bool {
    schema.get("properties").is_some()
}

fn integral(value: &Value, schema: &Value) -> bool {
    value.is_number() && schema.get("type").is_some_and(|t| t == "number")
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests;
