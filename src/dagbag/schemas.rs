//! The JSON Schemas of everything a file may say, made once from the types that read it; and the schema of
//! a whole file, for editors.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::keys::{CommonKeys, DagKeys, GroupKeys, TaskIdentity};
use crate::tasks::{KINDS, Kind};

/// All schemas, with their shared definitions and their patterns compiled.
pub(super) struct Schemas {
    /// Of [`DagKeys`].
    pub(super) dag: Value,
    /// Of [`GroupKeys`].
    pub(super) group: Value,
    /// Of [`TaskIdentity`].
    pub(super) identity: Value,
    /// Of [`CommonKeys`].
    pub(super) common: Value,
    /// The names of all keys that kinds share.
    pub(super) common_keys: Vec<String>,
    /// Of each kind's keys, by its name.
    pub(super) kinds: HashMap<&'static str, Value>,
    kind_keys: HashMap<&'static str, Vec<String>>,
    definitions: Map<String, Value>,
    patterns: HashMap<String, Regex>,
}

/// The schemas of this program.
pub(super) static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| Schemas::of(KINDS));

impl Schemas {
    /// With the schemas of these kinds.
    pub(super) fn of(kinds: &[Kind]) -> Self {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let dag = generator.subschema_for::<DagKeys>().to_value();
        let group = generator.subschema_for::<GroupKeys>().to_value();
        let identity = generator.subschema_for::<TaskIdentity>().to_value();
        let common = generator.subschema_for::<CommonKeys>().to_value();
        let kinds = kinds.iter().map(|kind| (kind.name, (kind.schema)(&mut generator).to_value())).collect();
        let definitions = generator.take_definitions(true);
        let mut patterns = HashMap::new();
        for schema in definitions.values() {
            collect_patterns(schema, &mut patterns);
        }
        let (common_keys, kind_keys) = (Vec::new(), HashMap::new());
        let mut all =
            Self { dag, group, identity, common, common_keys, kinds, kind_keys, definitions, patterns };
        let names =
            |schema: &Value| all.properties(schema).into_iter().map(|(name, _)| name.to_owned()).collect();
        let common_keys: Vec<String> = names(&all.common);
        let kind_keys = all.kinds.iter().map(|(kind, schema)| (*kind, names(schema))).collect();
        (all.common_keys, all.kind_keys) = (common_keys, kind_keys);
        for kind in all.kinds.values() {
            collect_patterns(kind, &mut all.patterns);
        }
        all
    }

    /// The names of a kind's own keys.
    pub(super) fn keys_of(&self, kind: &str) -> &[String] {
        self.kind_keys.get(kind).map_or(&[], Vec::as_slice)
    }

    /// The schema that `schema` refers to, or itself.
    pub(super) fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let mut here = schema;
        while let Some(name) = here.get("$ref").and_then(Value::as_str) {
            let name = name.strip_prefix("#/$defs/").unwrap_or(name);
            match self.definitions.get(name) {
                Some(next) => here = next,
                None => break,
            }
        }
        here
    }

    /// The keys that an object schema names, through references and `allOf`, with their schemas.
    pub(super) fn properties<'a>(&'a self, schema: &'a Value) -> Vec<(&'a str, &'a Value)> {
        let schema = self.resolve(schema);
        let mut all: Vec<(&str, &Value)> = Vec::new();
        if let Some(own) = schema.get("properties").and_then(Value::as_object) {
            all.extend(own.iter().map(|(name, schema)| (name.as_str(), schema)));
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            all.extend(self.properties(part));
        }
        all
    }

    /// The keys that must be there.
    pub(super) fn required<'a>(&'a self, schema: &'a Value) -> Vec<&'a str> {
        let schema = self.resolve(schema);
        let own = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let mut all: Vec<&str> = own.filter_map(Value::as_str).collect();
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            all.extend(self.required(part));
        }
        all
    }

    /// The compiled form of a pattern of these schemas.
    pub(super) fn pattern(&self, text: &str) -> Option<&Regex> {
        self.patterns.get(text)
    }

    /// The JSON Schema of one DAG document.
    pub(super) fn of_file(&self) -> Value {
        let mut definitions = self.definitions.clone();
        let mut dag = self.resolve(&self.dag).clone();
        add(&mut dag, "tasks", json!({"type": "array", "items": {"$ref": "#/$defs/Task"}}), "what it does");
        add(
            &mut dag,
            "task_groups",
            json!({"type": "array", "items": {"$ref": "#/$defs/Group"}}),
            "named parts",
        );
        add(&mut dag, "default_args", self.common.clone(), "defaults for the keys of every task");
        add(
            &mut dag,
            "params",
            json!({"type": "object"}),
            "name: default, or `{type, default, enum, minimum, maximum, pattern, description}`",
        );
        let mut group = self.resolve(&self.group).clone();
        add(&mut group, "default_args", self.common.clone(), "defaults for the keys of its tasks");
        add(&mut group, "tasks", json!({"type": "array", "items": {"$ref": "#/$defs/Task"}}), "its tasks");
        add(
            &mut group,
            "task_groups",
            json!({"type": "array", "items": {"$ref": "#/$defs/Group"}}),
            "its groups",
        );
        for (alias, word) in super::keys::DAG_ALIASES {
            let schema = dag["properties"][*word].clone();
            dag["properties"][*alias] = deprecated(schema, word);
        }
        for required in ["dag_id", "tasks"] {
            remove_required(&mut dag, required);
        }
        let kinds: Vec<Value> = KINDS.iter().map(|kind| self.of_task(kind.name)).collect();
        definitions.insert("Task".to_owned(), json!({"type": "object", "oneOf": kinds}));
        definitions.insert("Group".to_owned(), group);
        let mut file = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Mainspring DAG",
        });
        let object = file.as_object_mut().expect("it was written as one");
        object.extend(dag.as_object().expect("the schema of a struct is an object").clone());
        object.insert("title".to_owned(), json!("Mainspring DAG"));
        object.insert("$defs".to_owned(), Value::Object(definitions));
        file
    }

    fn of_task(&self, kind: &str) -> Value {
        let own = self.resolve(&self.kinds[kind]);
        let mut properties = Map::new();
        for (name, schema) in self.properties(&self.identity).into_iter().chain(self.properties(&self.common))
        {
            properties.insert(name.to_owned(), schema.clone());
        }
        for (alias, word) in super::keys::TASK_ALIASES {
            let schema = if *word == "type" { json!({"const": kind}) } else { properties[*word].clone() };
            properties.insert((*alias).to_owned(), deprecated(schema, word));
        }
        for (name, schema) in self.properties(own) {
            properties.insert(name.to_owned(), schema.clone());
        }
        properties.insert("type".to_owned(), json!({"const": kind}));
        json!({
            "title": kind,
            "description": own.get("description"),
            "type": "object",
            "properties": properties,
            "required": self.required(own),
            "additionalProperties": false,
            "anyOf": [{"required": ["type"]}, {"required": ["operator"]}, {"required": ["kind"]}],
        })
    }
}

fn add(schema: &mut Value, name: &str, mut property: Value, description: &str) {
    property["description"] = json!(description);
    schema["properties"][name] = property;
}

fn deprecated(mut schema: Value, word: &str) -> Value {
    if let Some(map) = schema.as_object_mut() {
        map.insert("description".to_owned(), json!(format!("accepted for `{word}`")));
        map.insert("deprecated".to_owned(), json!(true));
    }
    schema
}

fn remove_required(schema: &mut Value, name: &str) {
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|r| r != name);
    }
}

fn collect_patterns(schema: &Value, into: &mut HashMap<String, Regex>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(pattern)) = map.get("pattern")
                && let Ok(regex) = Regex::new(pattern)
            {
                into.insert(pattern.clone(), regex);
            }
            map.values().for_each(|value| collect_patterns(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_patterns(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
