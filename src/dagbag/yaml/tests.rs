//! Our reader against `serde_yaml`, which has the same parser below but its own idea of values.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Strict scalars, as ours are.
fn by_serde_yaml(text: &str) -> Vec<Value> {
    let options = serde_yaml::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    };
    serde_yaml::from_multiple_with_options(text, options).unwrap()
}

fn by_us(text: &str) -> Vec<Value> {
    let (nodes, problems) = documents(text);
    assert_eq!(problems, []);
    nodes.iter().map(Node::to_json).collect()
}

#[test]
fn every_right_file_has_the_values_that_serde_yaml_finds() {
    let folders = ["tests/dagbag/ok", "dags"];
    let files = folders.into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut seen = 0;
    for path in
        files.map(|entry| entry.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "yaml"))
    {
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(by_us(&text), by_serde_yaml(&text), "{}", path.display());
        seen += 1;
    }
    assert!(seen > 3, "only {seen} files");
}

#[test]
fn words_that_look_like_values_are_what_they_are_for_serde_yaml() {
    for word in [
        "no",
        "yes",
        "true",
        "~",
        "null",
        "010",
        "1_000",
        "1",
        "-1",
        "+1",
        "1.5",
        "1e3",
        "2026-01-01",
        "a b",
        "1:30",
    ] {
        assert_eq!(by_us(&format!("k: {word}")), by_serde_yaml(&format!("k: {word}")), "{word}");
    }
}

fn values() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[ -~]{0,12}",
        "[a-z:#\\-\\n '\"]{0,12}",
        "(no|true|null|~|010|1_0|0x1f|1e3|-|\\[|\\*a|&a|!t|%)"
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (-1_000_000_i32..1_000_000).prop_map(|n| json!(f64::from(n) / 64.0)),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z_ .:]{1,8}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_serde_yaml_writes_is_read_back(value in values()) {
        let text = serde_yaml::to_string(&value).unwrap();
        prop_assert_eq!(by_us(&text), [value], "{}", text);
    }
}
