//! Templates as authors write them.

use super::*;

fn renderer() -> Renderer {
    let at = |text| Timestamp::parse(text).expect("a time");
    let object = |value: Value| value.as_object().expect("an object").clone();
    Renderer::new(&Scope {
        dag_id: "shop".into(),
        task_id: "load".into(),
        run_id: "manual__1".into(),
        logical_date: at("2026-03-01T02:00:00Z"),
        data_interval_start: at("2026-02-28T02:00:00Z"),
        data_interval_end: at("2026-03-01T02:00:00Z"),
        try_number: 1,
        map_index: 2,
        map_item: json!({"city": "Berlin"}),
        params: object(json!({"limit": 8, "full": false})),
        vars: Map::new(),
        outputs: object(json!({"orders": {"rows": 7}, "sql": {"return_value": [1, 2]}, "g.t": {"n": 1}})),
        triggers: object(json!({"triggering_asset_events": {"raw.orders": [{"source_dag_id": "shop"}]}})),
    })
}

#[test]
fn a_text_that_is_one_expression_keeps_its_type() {
    let r = renderer();
    let value = json!({"k": {"max": "{{ params.limit }}"}, "n": "{{ params.limit }} at most", "raw": "{{"});
    let rendered = r.render_value(&value, &["raw"]).unwrap();
    assert_eq!(rendered, json!({"k": {"max": 8}, "n": "8 at most", "raw": "{{"}));
}

#[test]
fn every_name_and_filter_of_the_page_works() {
    let r = renderer();
    for (template, expected) in [
        ("{{ ds }}", json!("2026-03-01")),
        ("{{ triggering_events }}", json!([])),
        ("{{ triggering_asset_events['raw.orders'][0].source_dag_id }}", json!("shop")),
        ("{{ ts }}", json!("2026-03-01T02:00:00Z")),
        ("{{ logical_date | ds_nodash }}", json!("20260301")),
        ("{{ data_interval_start | ts_nodash }}", json!("20260228T020000")),
        ("{{ ds | days(-1) }}", json!("2026-02-28")),
        ("{{ logical_date | months(1) | strftime('%Y/%m') }}", json!("2026/04")),
        ("{{ logical_date | hours(-3) }}", json!("2026-02-28T23:00:00Z")),
        ("{{ outputs.orders.rows }}", json!(7)),
        ("{{ outputs.g.t.n }}", json!(1)),
        ("{{ ti.xcom_pull('sql') }}", json!([1, 2])),
        ("{{ ti.xcom_pull(task_ids='orders', key='rows') }}", json!(7)),
        ("{{ ti.xcom_pull('orders') }}", json!({"rows": 7})),
        ("{{ map_item.city }}-{{ map_index }}", json!("Berlin-2")),
        ("{{ dag.dag_id }}/{{ task.task_id }}/{{ ti.try_number }}", json!("shop/load/1")),
        ("{{ params.none | default(3) }}", json!(3)),
    ] {
        assert_eq!(r.render_text(template), Ok(expected), "{template}");
    }
}

#[test]
fn an_error_says_which_key_line_and_column() {
    let r = renderer();
    let error = r.render_value(&json!({"a": ["x\n  {{ params.nope }}"]}), &[]).unwrap_err();
    assert_eq!((error.key.as_str(), error.line), ("a.0", 2));
    assert!(r.render_text("{{ nothing }}").is_err());
    assert!(r.render_text("{{ outputs.orders.nope }}").is_err());
    assert!(
        r.render_text("{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}")
            .is_err()
    );
}

#[test]
fn a_condition_is_judged_with_or_without_braces() {
    let r = renderer();
    assert_eq!(r.eval_bool("params.full"), Ok(false));
    assert_eq!(r.eval_bool("{{ params.limit > 7 and ds >= '2026-01-01' }}"), Ok(true));
    assert!(r.eval_bool("params.nope").is_err());
}

#[test]
fn a_filter_that_does_not_exist_is_found_before_anything_runs() {
    assert_eq!(names_in("{{ ds | days(-1) }} {{ \"a|b\" }}").unwrap(), ["ds"]);
    let error = names_in("x\n {{ ds | dayz }}").unwrap_err();
    assert_eq!((error.line, error.column, error.message.as_str()), (2, 10, "there is no filter `dayz`"));
    assert!(names_in_expression("ds | dayz").is_err());
}
