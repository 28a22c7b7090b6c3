//! The gate before a model is served: which model a validation has to do with, and what its verdict does.
//!
//! A clustering leaves a candidate. A `validate` task of the same run on the candidate's assignments is its
//! gate: passed, `current` moves to the candidate; failed, what was served stays, in the lake too, and the
//! history says why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::TaskContext;
use super::super::datasets;
use crate::data::models::{self, Event, History, Record};
use crate::data::{DataError, DatasetName, served};

/// The model that a validation has to do with.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) model: String,
    pub(super) history: History,
    /// The version that waits for this validation, if the rows are its assignments.
    pub(super) candidate: Option<Record>,
}

impl Subject {
    /// Finds the model called `named`, or else the one whose candidate of this run has its assignments in
    /// the dataset `from`.
    pub(super) async fn find(
        cx: &TaskContext,
        from: Option<&DatasetName>,
        named: Option<&str>,
    ) -> Result<Option<Self>, DataError> {
        let (home, from, named) = (cx.shared.home.clone(), from.cloned(), named.map(str::to_owned));
        let (dag_id, run_id) = (cx.dag_id.to_string(), cx.run_id.to_string());
        let of = move |home: &Path, model: String| -> Result<Self, DataError> {
            let history = models::history(home, &model)?;
            let candidate = history.candidate_of(&dag_id, &run_id);
            let candidate = candidate.filter(|c| from.as_ref().is_some_and(|f| f.as_str() == c.assignments));
            let candidate = candidate.cloned();
            Ok(Self { model, history, candidate })
        };
        datasets::blocking(move || {
            if let Some(model) = named {
                return of(&home, model).map(Some);
            }
            for model in models::list(&home)? {
                let subject = of(&home, model)?;
                if subject.candidate.is_some() {
                    return Ok(Some(subject));
                }
            }
            Ok(None)
        })
        .await
    }

    /// The version whose rows are validated: the candidate, or else what is served.
    pub(super) fn judged(&self) -> Option<Record> {
        self.candidate.clone().or_else(|| self.history.served())
    }

    /// The version to compare with: `version` if one is named, or else the one served before the judged one;
    /// `None` if nothing was.
    pub(super) fn before(&self, version: Option<&str>) -> Result<Option<Record>, DataError> {
        if let Some(version) = version {
            return match self.history.of_version(version) {
                Some(record) => Ok(Some(record.clone())),
                None => Err(self.missing(version)),
            };
        }
        Ok(if self.candidate.is_some() { self.history.served() } else { self.history.served_previously() })
    }

    fn missing(&self, version: &str) -> DataError {
        let known: BTreeSet<&str> = self.history.0.iter().map(|r| r.version.as_str()).collect();
        let hint = crate::data::hint_near(version, known);
        DataError::Permanent(format!("model `{}` has no version `{version}`{hint}", self.model))
    }

    /// Has the candidate served.
    pub(super) async fn promote(&self, cx: &TaskContext, candidate: &Record) -> Result<(), DataError> {
        let key = datasets::write_key(cx);
        let held = served::hold(&cx.shared.lake, &candidate.datasets, &key).await?;
        let record = self.record(cx, candidate, Event::Promoted, held, String::new());
        let (home, model) = (cx.shared.home.clone(), self.model.clone());
        let attempt = format!("{}-{}-{}", cx.run_id, cx.task_id, cx.fence.0);
        datasets::blocking(move || {
            models::point(&home, &model, &record.version, &attempt)?;
            models::note(&home, &model, &record)
        })
        .await?;
        cx.log
            .line(&format!("version {} of model `{}` is served from now on", candidate.version, self.model));
        Ok(())
    }

    /// Leaves what was served in its place, and says why. Gives a sentence for people.
    pub(super) async fn block(
        &self,
        cx: &TaskContext,
        candidate: &Record,
        why: &str,
    ) -> Result<String, DataError> {
        let (held, sentence) = match self.history.served() {
            None => (BTreeMap::new(), "nothing was served before, and nothing is".to_owned()),
            Some(served) => {
                let key = datasets::write_key(cx);
                let held = served::hold(&cx.shared.lake, &served.datasets, &key).await?;
                (held, format!("version {} stays served", served.version))
            }
        };
        let record = self.record(cx, candidate, Event::Blocked, held, why.to_owned());
        let (home, model) = (cx.shared.home.clone(), self.model.clone());
        datasets::blocking(move || models::note(&home, &model, &record)).await?;
        let sentence =
            format!("version {} of model `{}` is blocked: {sentence}", candidate.version, self.model);
        cx.log.line(&sentence);
        Ok(sentence)
    }

    fn record(
        &self,
        cx: &TaskContext,
        candidate: &Record,
        event: Event,
        datasets: BTreeMap<String, i64>,
        why: String,
    ) -> Record {
        Record {
            event,
            dag_id: cx.dag_id.to_string(),
            run_id: cx.run_id.to_string(),
            task_id: cx.task_id.to_string(),
            at: cx.logical_date.to_string(),
            datasets,
            why,
            ..candidate.clone()
        }
    }
}
