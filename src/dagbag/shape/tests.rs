//! Every form that serde's enums and structs take in a JSON Schema, as kinds use them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::schemas::Schemas;
use super::super::yaml::documents;
use super::Shape;
use crate::tasks::Kind;
use crate::tasks::units::Span;

/// A kind with a key of every form.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is looked at")]
struct Probe {
    /// A list of tagged mappings.
    #[serde(default)]
    expect: Vec<Expect>,
    /// A word with a second spelling.
    #[serde(default)]
    mode: Option<Mode>,
    /// One of several forms.
    #[serde(default)]
    from: Option<From>,
    /// A span.
    #[serde(default)]
    wait: Option<Span>,
    /// Anything.
    #[serde(default)]
    any: Option<Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(dead_code, reason = "only its schema is looked at")]
enum Expect {
    Unique(Unique),
    Range(Range),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is looked at")]
struct Unique {
    columns: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is looked at")]
struct Range {
    column: String,
    #[serde(default)]
    min: Option<f64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Added.
    Append,
    /// Replaced.
    #[serde(alias = "overwrite")]
    Replace,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is looked at")]
enum From {
    Dataset(String),
    File(File),
    Query(Query),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is looked at")]
struct File {
    file: String,
    format: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is looked at")]
struct Query {
    connection: String,
    query: String,
}

const PROBE: Kind = Kind {
    name: "probe",
    verbatim: &[],
    schema: |generator| generator.subschema_for::<Probe>(),
    read: |_| Err("only the schema is looked at".to_owned()),
};

/// What does not fit, its value, whether it is dynamic, whether only words are in doubt.
fn read(yaml: &str) -> (Vec<String>, Value, bool, bool) {
    let schemas = Schemas::of(&[PROBE]);
    let (roots, problems) = documents(yaml);
    assert_eq!(problems, []);
    let mut shape = Shape::new(&schemas, "", &[]);
    let value = shape.read(&roots[0], &schemas.kinds["probe"]);
    let (dynamic, only_words) = (shape.dynamic, shape.only_words());
    let texts = shape.done().0.iter().map(|p| p.to_string().replace("error: ", "")).collect();
    (texts, value, dynamic, only_words)
}

#[test]
fn what_fits_is_read_as_it_stands() {
    let yaml = "expect: [{type: unique, columns: [a]}, {type: range, column: b, min: 1}]\n\
                mode: append\nfrom: {file: a.csv, format: csv}\nwait: 10s\nany: {x: [1, no]}\n";
    let (problems, value, dynamic, _) = read(yaml);
    assert_eq!(problems, [""; 0]);
    assert!(!dynamic);
    assert_eq!(value["expect"][1], json!({"type": "range", "column": "b", "min": 1}));
    assert_eq!(value["any"], json!({"x": [1, "no"]}));
}

#[test]
fn a_tagged_mapping_is_judged_by_its_tag() {
    let (problems, ..) = read("expect:\n  - {type: unique, column: a}\n  - {type: rang, column: b}\n");
    assert_eq!(
        problems,
        [
            "unknown key `column` in `expect.0`\nhint: did you mean `columns`?",
            "the key `columns` is missing in `expect.0`",
            "`expect.1.type` is `rang`, expected `unique` or `range`\nhint: did you mean `range`?",
        ]
    );
}

#[test]
fn a_mapping_of_several_forms_is_judged_by_the_nearest() {
    let (problems, ..) = read("from: {connection: shop, querry: x}\n");
    assert_eq!(
        problems,
        [
            "unknown key `querry` in `from`\nhint: did you mean `query`?",
            "the key `query` is missing in `from`"
        ]
    );
    let (problems, ..) = read("expect: [{columns: [a]}]\n");
    assert_eq!(problems, ["the key `type` is missing in `expect.0`, expected `unique` or `range`"]);
    let (problems, ..) = read("from: 7\n");
    assert_eq!(problems, ["`from` is `7`, expected a text or a mapping\nhint: put it in quotes: `\"7\"`"]);
}

#[test]
fn a_second_spelling_leaves_the_last_word_to_the_reader() {
    let (problems, _, _, only_words) = read("mode: overwrite\n");
    assert_eq!(problems.len(), 1);
    assert!(only_words);
    let (_, _, _, only_words) = read("mode: overwrite\nwait: soon\n");
    assert!(!only_words);
}

#[test]
fn a_template_stands_in_for_any_type() {
    let (problems, value, dynamic, _) = read(
        "wait: \"{{ params.w }}\"\nfrom: \"{{ params.f }}\"\nexpect: [{type: range, column: a, min: \"{{ params.m }}\"}]\n",
    );
    assert_eq!(problems, [""; 0]);
    assert!(dynamic);
    assert_eq!((&value["from"], value["wait"].is_number()), (&json!("{{ params.f }}"), true));
    assert!(value["expect"][0]["min"].is_number());
}
