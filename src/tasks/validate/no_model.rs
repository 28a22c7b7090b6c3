//! The expectations on models, in a program that was built without clustering.

use super::super::TaskContext;
use super::judge::Finding;
use super::own::Table;
use super::spec::{Cohesion, Drift, Parity, Separation, Stability};
use crate::data::DataError;

fn absent() -> Finding {
    Finding::error("this program was built without clustering (feature `ml`)")
}

pub(super) async fn drift(_: &TaskContext, _: &Table, _: &Drift) -> Result<Vec<Finding>, DataError> {
    Ok(vec![absent()])
}

pub(super) async fn inertia_ratio(_: &TaskContext, _: &Table, _: &Cohesion) -> Result<Finding, DataError> {
    Ok(absent())
}

pub(super) async fn separation(_: &TaskContext, _: &Table, _: &Separation) -> Result<Finding, DataError> {
    Ok(absent())
}

pub(super) async fn stability(_: &TaskContext, _: &Table, _: &Stability) -> Result<Finding, DataError> {
    Ok(absent())
}

pub(super) async fn parity(_: &TaskContext, _: &Table, _: &Parity) -> Result<Finding, DataError> {
    Ok(absent())
}
