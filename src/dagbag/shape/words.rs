//! What a schema wants and what an author wrote, in words.

use serde_json::Value;

use super::super::problem::{listed, nearest};
use super::super::yaml::{Node, Tree, plain};
use super::Shape;

impl Shape<'_> {
    pub(super) fn hint_for(&self, node: &Node, schema: &Value) -> Option<String> {
        let Tree::Scalar { text, quoted } = &node.tree else { return None };
        let mut choices = Vec::new();
        self.choices(schema, &mut choices);
        if let Some(near) = nearest(text, choices.iter().filter_map(|c| c.as_str())) {
            return Some(format!("did you mean `{near}`?"));
        }
        let expects = |name: &str| self.has_type(schema, name);
        if expects("boolean") && !expects("string") {
            return match text.to_lowercase().as_str() {
                "yes" | "on" | "y" | "true" => Some("write `true`, without quotes".to_owned()),
                "no" | "off" | "n" | "false" => Some("write `false`, without quotes".to_owned()),
                _ => None,
            };
        }
        if *quoted && (expects("integer") || expects("number")) && plain(text).is_number() {
            return Some("write the number without quotes".to_owned());
        }
        if !*quoted
            && choices.is_empty()
            && expects("string")
            && !matches!(plain(text), Value::String(_) | Value::Null)
        {
            return Some(format!("put it in quotes: `\"{text}\"`"));
        }
        None
    }

    pub(super) fn has_type(&self, schema: &Value, name: &str) -> bool {
        let resolved = self.schemas.resolve(schema);
        if let Some(branches) = branches_of(resolved) {
            return branches.iter().any(|branch| self.has_type(branch, name));
        }
        resolved.get("type").is_some() && self.allows(resolved, name)
    }

    /// The values that `enum` and `const` allow, through branches.
    pub(super) fn choices<'s>(&'s self, schema: &'s Value, into: &mut Vec<&'s Value>) {
        let schema = self.schemas.resolve(schema);
        into.extend(schema.get("enum").and_then(Value::as_array).into_iter().flatten());
        into.extend(schema.get("const"));
        for key in ["anyOf", "oneOf"] {
            for branch in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.choices(branch, into);
            }
        }
    }

    /// What a schema wants, in words.
    pub(super) fn expected(&self, schema: &Value) -> String {
        let resolved = self.schemas.resolve(schema);
        if let Some(Value::String(words)) = schema.get("x-expected").or_else(|| resolved.get("x-expected")) {
            return words.clone();
        }
        let mut choices = Vec::new();
        self.choices(resolved, &mut choices);
        choices.retain(|choice| !choice.is_null());
        let mut words: Vec<String> = Vec::new();
        if !choices.is_empty() {
            let names: Vec<String> =
                choices.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
            let names = listed(names.iter().map(String::as_str));
            words.push(names);
        }
        for branch in
            ["anyOf", "oneOf"].iter().filter_map(|k| resolved.get(*k)).filter_map(Value::as_array).flatten()
        {
            let inner = self.schemas.resolve(branch);
            let is_null = inner.get("type").is_some_and(|t| t == "null");
            if !is_null && inner.get("enum").is_none() && inner.get("const").is_none() {
                words.push(self.expected(branch));
            }
        }
        if words.is_empty() {
            let types = match resolved.get("type") {
                Some(Value::String(one)) => vec![one.as_str()],
                Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
                Some(_) | None => Vec::new(),
            };
            words.extend(types.into_iter().filter(|t| *t != "null").map(|t| in_words(t, resolved)));
        }
        words.retain(|word| !word.is_empty() && word != "nothing");
        words.dedup();
        if words.is_empty() { "something else".to_owned() } else { words.join(" or ") }
    }
}

/// The forms that a schema lets one choose from.
pub(super) fn branches_of(schema: &Value) -> Option<&Vec<Value>> {
    schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
}

fn in_words(name: &str, schema: &Value) -> String {
    match name {
        "string" => "a text",
        "integer" if schema.get("minimum").and_then(Value::as_f64) == Some(0.0) => "a whole number from 0",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a mapping",
        _ => "",
    }
    .to_owned()
}

pub(super) fn shown_path(path: &[String]) -> String {
    if path.is_empty() { "this".to_owned() } else { format!("`{}`", path.join(".")) }
}

/// What an author wrote, short enough for a message.
pub(in super::super) fn shown(node: &Node) -> String {
    const CHARACTERS_MAX: usize = 60;
    match &node.tree {
        Tree::Scalar { text, quoted: false } if plain(text).is_null() => "empty".to_owned(),
        Tree::Scalar { text, quoted } => {
            let line = text.lines().next().unwrap_or("");
            let cut: String = line.chars().take(CHARACTERS_MAX).collect();
            let more = if cut.len() < text.trim_end().len() { "…" } else { "" };
            let quote = if *quoted && !matches!(plain(text), Value::String(_)) { "\"" } else { "" };
            format!("`{quote}{cut}{more}{quote}`")
        }
        Tree::List(_) => "a list".to_owned(),
        Tree::Mapping(_) => "a mapping".to_owned(),
    }
}
