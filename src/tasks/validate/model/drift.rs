//! Whether columns are distributed as they were.

use datafusion::arrow::array::Array;
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::DataType;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::ident;

use super::super::super::TaskContext;
use super::super::super::cluster::input;
use super::super::judge::{Finding, bounds_text, of_figure};
use super::super::own::Table;
use super::super::plan::column;
use super::super::spec::{Bounds, Drift, DriftMethod, DriftReference};
use super::{NO_MODEL, NO_VERSION, load};
use crate::core::alert::SignKind;
use crate::data::session::of_datafusion;
use crate::data::{DataError, DatasetName, frames};
use crate::segment::Model;
use crate::segment::drift::{
    Bins, chi_squared, jensen_shannon, kolmogorov_smirnov, level_counts, level_shares, psi, psi_by_chance,
    wasserstein,
};
use crate::segment::prepare::{Column, FittedFeature};

/// PSI that chance alone may give before a verdict is withheld.
const CHANCE_MAX: f64 = 0.02;
/// sqrt(1/n + 1/m) times this is exceeded by the Kolmogorov-Smirnov statistic of one law in 1 of 20 cases.
const KS_CHANCE: f64 = 1.36;

/// What a column is compared with.
enum Reference {
    /// What a model kept of its training rows.
    Model(Box<Model>),
    /// Rows.
    Rows(DataFrame),
}

/// A sample in bins or levels beside a reference.
struct Shares {
    current: Vec<u64>,
    reference: Vec<f64>,
    /// Rows of the reference.
    rows: u64,
}

/// See [`Drift`]; one finding per column.
pub(in super::super) async fn drift(
    cx: &TaskContext,
    table: &Table,
    wanted: &Drift,
) -> Result<Vec<Finding>, DataError> {
    let reference = match reference(cx, table, wanted).await? {
        Ok(reference) => reference,
        Err(finding) => return Ok(vec![finding]),
    };
    let names = match (&wanted.columns, &reference) {
        (said, Reference::Rows(_)) if said.is_empty() => {
            return Ok(vec![Finding::error("says no `columns`, which only `reference: model` knows itself")]);
        }
        (said, Reference::Model(model)) if said.is_empty() => {
            model.features.features().iter().map(|f| f.name().to_owned()).collect()
        }
        (said, _) => said.clone(),
    };
    let mut findings = Vec::with_capacity(names.len());
    for name in names {
        let finding = match of_column(cx, table, wanted, &reference, &name).await {
            Ok(finding) => finding,
            Err(error) => Finding::error(error.to_string()),
        };
        findings.push(Finding { dimension: name, sign: Some(SignKind::Shift), ..finding });
    }
    Ok(findings)
}

async fn reference(
    cx: &TaskContext,
    table: &Table,
    wanted: &Drift,
) -> Result<Result<Reference, Finding>, DataError> {
    match &wanted.reference {
        DriftReference::Model => kept(cx, table, None).await,
        DriftReference::ModelVersion(version) => kept(cx, table, Some(version)).await,
        DriftReference::Version(version) => Ok(match table.at(cx, *version).await? {
            Some(rows) => Ok(Reference::Rows(rows)),
            None => Err(Finding::skipped("no_reference: this is the first version", "no drift")),
        }),
        DriftReference::Table(name) => {
            let dataset = DatasetName::parse(name).map_err(DataError::Permanent)?;
            Ok(Ok(Reference::Rows(frames::open(&cx.shared.lake, &dataset).await?.rows)))
        }
    }
}

/// What a version of the model keeps of the rows it was fitted on; default is the version that is served.
async fn kept(
    cx: &TaskContext,
    table: &Table,
    version: Option<&str>,
) -> Result<Result<Reference, Finding>, DataError> {
    let Some(subject) = &table.subject else { return Ok(Err(Finding::error(NO_MODEL))) };
    let record = match version {
        Some(version) => subject.before(Some(version))?,
        None => subject.history.served(),
    };
    let Some(record) = record else { return Ok(Err(Finding::skipped(NO_VERSION, "no drift"))) };
    let model = load(cx, &subject.model, &record.version).await?;
    Ok(Ok(Reference::Model(Box::new(model))))
}

async fn of_column(
    cx: &TaskContext,
    table: &Table,
    wanted: &Drift,
    reference: &Reference,
    name: &str,
) -> Result<Finding, DataError> {
    let bounds = limits(wanted);
    let expected = format!("{} {}", wanted.method.as_str(), bounds_text(&bounds));
    let categorical = match reference {
        Reference::Model(model) => match feature(model, name)? {
            FittedFeature::Categorical(_) => true,
            FittedFeature::Numeric(_) => false,
        },
        Reference::Rows(_) => is_text(&table.rows, name)?,
    };
    let current = values(&table.rows, name, categorical, cx).await?;
    if present(&current) == 0 {
        return Ok(Finding::no_data(bounds.allow_empty, &expected));
    }
    let shares = match reference {
        Reference::Model(model) => of_model(model, name, &current)?,
        Reference::Rows(rows) => {
            let old = values(rows, name, categorical, cx).await?;
            if present(&old) == 0 {
                let observed = "no_data: the reference has no rows to compare with";
                return Ok(Finding { observed: observed.to_owned(), ..Finding::no_data(false, &expected) });
            }
            if let (DriftMethod::Ks | DriftMethod::Wasserstein, Column::Numeric(new), Column::Numeric(old)) =
                (wanted.method, &current, &old)
            {
                return Ok(of_values(wanted.method, new, old, bounds, expected));
            }
            of_rows(&old, &current)
        }
    };
    Ok(of_shares(wanted.method, &shares, bounds, expected))
}

fn limits(wanted: &Drift) -> Bounds {
    let (warn, fail) = match wanted.method {
        DriftMethod::Psi => (0.1, 0.25),
        DriftMethod::Ks | DriftMethod::Js | DriftMethod::Wasserstein | DriftMethod::Chi2 => (0.1, 0.2),
    };
    wanted.bounds().or(None, None, Some(warn), Some(fail))
}

fn feature<'a>(model: &'a Model, name: &str) -> Result<&'a FittedFeature, DataError> {
    let features = model.features.features();
    features.iter().find(|feature| feature.name() == name).ok_or_else(|| {
        let hint = crate::data::hint_near(name, features.iter().map(FittedFeature::name));
        DataError::Permanent(format!("the model has no feature `{name}`{hint}"))
    })
}

fn is_text(rows: &DataFrame, name: &str) -> Result<bool, DataError> {
    column(rows, name)?;
    let field = rows.schema().fields().iter().find(|field| field.name() == name);
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    Ok(field.is_some_and(|field| is_text(field.data_type())))
}

/// A column in memory.
async fn values(
    rows: &DataFrame,
    name: &str,
    categorical: bool,
    cx: &TaskContext,
) -> Result<Column, DataError> {
    column(rows, name)?;
    let batches = frames::collect(rows.clone().select(vec![ident(name)]).map_err(of_datafusion)?).await?;
    let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(0).as_ref()).collect();
    if parts.is_empty() {
        return Ok(if categorical { Column::Categorical(Vec::new()) } else { Column::Numeric(Vec::new()) });
    }
    let all = concat(&parts).map_err(|error| DataError::Permanent(error.to_string()))?;
    input::values(name, categorical, &all, cx.logical_date)
}

/// Rows that count: numbers, or all levels (no value is one of them).
fn present(column: &Column) -> usize {
    match column {
        Column::Numeric(values) => values.iter().filter(|value| value.is_finite()).count(),
        Column::Categorical(levels) => levels.len(),
    }
}

fn of_model(model: &Model, name: &str, current: &Column) -> Result<Shares, DataError> {
    let none = || DataError::Permanent(format!("the model keeps no reference of `{name}`; fit it anew"));
    let rows = model.rows as u64;
    let (counts, reference) = match current {
        Column::Numeric(values) => {
            let bins = &model.reference.feature_bins;
            let (_, bins) = bins.iter().find(|(of, _)| of == name).ok_or_else(none)?;
            (bins.counts(values), bins.shares.clone())
        }
        Column::Categorical(levels) => {
            let shares = &model.reference.level_shares;
            let (_, known) = shares.iter().find(|(of, _)| of == name).ok_or_else(none)?;
            let counts = level_counts(known, levels.iter().map(Option::as_deref));
            (counts, known.iter().map(|(_, share)| *share).collect())
        }
    };
    Ok(Shares { current: counts, reference, rows })
}

fn of_rows(old: &Column, current: &Column) -> Shares {
    let rows = present(old) as u64;
    match (old, current) {
        (Column::Numeric(old), Column::Numeric(new)) => {
            let bins = Bins::of(old).unwrap_or(Bins { edges: Vec::new(), shares: vec![1.0] });
            Shares { current: bins.counts(new), reference: bins.shares, rows }
        }
        (old, new) => {
            let (old, new) = (levels(old), levels(new));
            let known = level_shares(old.iter().map(Option::as_deref));
            let current = level_counts(&known, new.iter().map(Option::as_deref));
            Shares { current, reference: known.into_iter().map(|(_, share)| share).collect(), rows }
        }
    }
}

fn levels(column: &Column) -> Vec<Option<String>> {
    match column {
        Column::Categorical(levels) => {
            levels.iter().map(|level| level.as_deref().map(str::to_owned)).collect()
        }
        Column::Numeric(values) => {
            values.iter().map(|value| value.is_finite().then(|| value.to_string())).collect()
        }
    }
}

fn of_shares(method: DriftMethod, shares: &Shares, bounds: Bounds, expected: String) -> Finding {
    let n: u64 = shares.current.iter().sum();
    let current: Vec<f64> = shares.current.iter().map(|count| *count as f64 / n as f64).collect();
    let chance = psi_by_chance(current.len(), n, shares.rows);
    if chance > CHANCE_MAX {
        let observed =
            format!("sample_too_small: {n} rows against {} tell no drift from chance", shares.rows);
        return Finding::skipped(observed, expected);
    }
    let (value, note) = match method {
        DriftMethod::Psi => (psi(&current, &shares.reference), String::new()),
        DriftMethod::Js => (jensen_shannon(&current, &shares.reference), String::new()),
        DriftMethod::Chi2 => {
            let reference: Vec<u64> =
                shares.reference.iter().map(|share| (share * shares.rows as f64).round() as u64).collect();
            match chi_squared(&shares.current, &reference) {
                Some(test) => (test.effect, format!(" (chi² {:.1}, p {:.2e})", test.statistic, test.p_value)),
                None => return Finding::no_data(false, &expected),
            }
        }
        DriftMethod::Ks | DriftMethod::Wasserstein => {
            return Finding::error(format!(
                "`{}` compares numbers, and needs the rows of a reference: `version` or `table`",
                method.as_str()
            ));
        }
    };
    let finding = of_figure(Some(value), n, bounds);
    Finding { observed: format!("{value:.4}{note}"), expected, ..finding }
}

fn of_values(method: DriftMethod, new: &[f64], old: &[f64], bounds: Bounds, expected: String) -> Finding {
    let finite = |values: &[f64]| values.iter().filter(|value| value.is_finite()).count();
    let (n, m) = (finite(new), finite(old));
    let limit = bounds.warn_above.or(bounds.max).unwrap_or(1.0);
    if method == DriftMethod::Ks && KS_CHANCE * (1.0 / n as f64 + 1.0 / m as f64).sqrt() > limit {
        let observed = format!("sample_too_small: {n} rows against {m} tell no drift from chance");
        return Finding::skipped(observed, expected);
    }
    let (value, note) = if method == DriftMethod::Ks {
        let test = kolmogorov_smirnov(new, old);
        (test.map(|t| t.statistic), test.map_or(String::new(), |t| format!(" (p {:.2e})", t.p_value)))
    } else {
        let spread = deviation(old);
        let distance = wasserstein(new, old).map(|d| if d == 0.0 { 0.0 } else { d / spread });
        (distance, " standard deviations".to_owned())
    };
    let finding = of_figure(value, n as u64, bounds);
    let observed = value.map_or(finding.observed.clone(), |value| format!("{value:.4}{note}"));
    Finding { observed, expected, ..finding }
}

/// The population standard deviation of the finite values.
fn deviation(values: &[f64]) -> f64 {
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    let n = finite.len() as f64;
    let mean = finite.iter().sum::<f64>() / n;
    (finite.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt()
}
