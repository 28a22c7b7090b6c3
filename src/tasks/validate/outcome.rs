//! Results for people and for later tasks: the log, the outputs, the sentence of a failure.

use serde_json::{Value, json};

use super::super::TaskContext;
use super::Judged;
use super::judge::{Finding, Status};
use crate::core::alert::{Sign, SignKind};
use crate::data::cells;

/// Results in the outputs; the log has all.
const RESULTS_MAX: usize = 100;
/// Letters of one result's texts in the outputs.
const TEXT_MAX: usize = 200;

impl Judged {
    /// The expectation and, if it has several results, which.
    pub(super) fn title(&self) -> String {
        match self.finding.dimension.as_str() {
            "" => self.label.clone(),
            dimension => format!("{} of {dimension}", self.label),
        }
    }

    fn sentence(&self) -> String {
        let Finding { observed, expected, samples, .. } = &self.finding;
        let shown: Vec<String> = samples.iter().map(|s| format!("`{s}`")).collect();
        let shown =
            if shown.is_empty() { String::new() } else { format!("; for instance {}", shown.join(", ")) };
        format!("{}: {observed}, expected {expected}{shown}", self.title())
    }
}

/// Every failure, for people.
pub(super) fn sentences(validated: &str, all: usize, failed: &[&Judged]) -> String {
    let mut text = format!("{} of {all} expectations failed on `{validated}`", failed.len());
    failed.iter().for_each(|result| text.push_str(&format!("\n- {}", result.sentence())));
    text
}

/// All results as a table in the log.
pub(super) fn log(cx: &TaskContext, results: &[Judged]) {
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|result| {
            let f = &result.finding;
            let counts = [f.evaluated, f.failed, f.ignored].map(|n| n.to_string());
            let texts = [f.status.as_str(), &result.title(), &f.observed, &f.expected].map(str::to_owned);
            texts.into_iter().chain(counts).collect()
        })
        .collect();
    let header = ["status", "expectation", "observed", "expected", "judged", "failed", "nulls"];
    cells::table_text(&header, &rows).lines().for_each(|line| cx.log.line(line));
}

/// What people should hear of though the task went on: one sign of each kind, with a line for each result.
pub(super) fn signs(validated: &str, results: &[Judged]) -> Vec<Sign> {
    let of = |kind: SignKind| {
        let seen =
            results.iter().filter(|r| r.finding.status >= Status::Warn && r.finding.sign == Some(kind));
        let lines: Vec<String> = seen.map(|result| format!("- {}", result.sentence())).collect();
        let text = format!("on `{validated}`:\n{}", lines.join("\n")).into();
        (!lines.is_empty()).then_some(Sign { kind, text })
    };
    SignKind::ALL.iter().copied().filter_map(of).collect()
}

/// The outputs: counts, results, and `alerts`, what people who watch should hear of though the task went on.
pub(super) fn figures(validated: &str, results: &[Judged]) -> Value {
    let count = |statuses: &[Status]| results.iter().filter(|r| statuses.contains(&r.finding.status)).count();
    let short = |text: &str| text.chars().take(TEXT_MAX).collect::<String>();
    let shown: Vec<Value> = results
        .iter()
        .take(RESULTS_MAX)
        .map(|result| {
            json!({
                "expectation": short(&result.title()),
                "status": result.finding.status.as_str(),
                "observed": short(&result.finding.observed),
                "expected": short(&result.finding.expected),
            })
        })
        .collect();
    let alerts: Vec<Value> = results
        .iter()
        .filter(|result| result.finding.status >= Status::Warn)
        .filter_map(|result| {
            let kind = result.finding.sign?.as_str();
            let summary = short(&result.sentence());
            Some(json!({"kind": kind, "subject": validated, "expectation": result.title(), "summary": summary}))
        })
        .take(RESULTS_MAX)
        .collect();
    json!({
        "passed": count(&[Status::Pass]),
        "warned": count(&[Status::Warn]),
        "failed": count(&[Status::Fail, Status::Error]),
        "skipped": count(&[Status::Skipped]),
        "results": shown,
        "alerts": alerts,
    })
}
