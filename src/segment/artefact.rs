//! The model as a text, and the one function that gives a row its segment.
//!
//! Owns the format `segment-model/1`: canonical JSON with a fixed order of keys and numbers in the shortest
//! form that reads back to the same bits. The text is a function of data and configuration alone: no clock,
//! no run. Batch and single rows are assigned by the same code.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::dbscan::{distance_measure, within};
use super::drift::Bins;
use super::points::squared_distance;
use super::prepare::{Preparation, PrepareError, Value};
use super::rfm::{self, Cuts};
use super::silhouette::Silhouette;
use super::spec::{AlgorithmName, Grid, Metric, Rule};

/// The format this code writes and reads.
const FORMAT: &str = "segment-model/1";
/// A row farther from its centre than this many times the segment's 99 % radius is an outlier.
const OUTLIER: f64 = 1.5;

/// A fitted segmentation: everything needed to give a row its segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// `segment-model/1`.
    pub format: String,
    /// How the segments were found.
    pub algorithm: AlgorithmName,
    /// The key of all draws of the fit.
    pub seed: u64,
    /// Rows the model was fitted on.
    pub rows: usize,
    /// Raw values to a row of the matrix.
    pub features: Preparation,
    /// How a prepared row gets its segment.
    pub assign: AssignRule,
    /// The segments, in the order of the centres: size falling.
    pub segments: Vec<Segment>,
    /// The training population, for drift.
    pub reference: Reference,
    /// Frozen RFM cut points, when the three parts are declared.
    pub rfm: Option<RfmCuts>,
    /// Figures of the fit.
    pub metrics: ModelMetrics,
}

/// How a row gets its segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssignRule {
    /// Which rule; ties go to the lower index.
    pub rule: RuleName,
    /// `euclidean` or `manhattan`: how far cores are. Centres are always measured by the straight line.
    pub metric: Metric,
    /// k × d in prepared units.
    pub centres: Vec<Vec<f64>>,
    /// Share of the training rows whose segment the rule gives back; `None` when it gives all back by nature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement_with_training: Option<f64>,
    /// What `nearest_core` looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<Cores>,
    /// What `rfm_grid` looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cells: Option<Cells>,
    /// The predicates of `rules`, the first that holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// The rules by which rows get segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleName {
    /// That of the nearest centre.
    NearestCentre,
    /// That of the nearest core within `eps`, else noise.
    NearestCore,
    /// That of the RFM cell, by the frozen cut points.
    RfmGrid,
    /// That of the first predicate that holds; needs a query engine.
    Rules,
}

/// The core rows of a density clustering.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cores {
    /// A row farther from every core is noise.
    pub eps: f64,
    /// m × d in prepared units.
    pub points: Vec<Vec<f64>>,
    /// The segment of each.
    pub segments: Vec<usize>,
    /// The segment of noise; `None` when training had none, and then noise goes to the nearest centre.
    pub noise: Option<usize>,
}

/// The cells of an RFM grid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cells {
    /// Which grid.
    pub grid: Grid,
    /// The features that hold recency, frequency and monetary value.
    pub features: [String; 3],
    /// The name of each segment's cells; a name that training did not meet goes to the nearest centre.
    pub names: Vec<String>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Its place among the centres.
    pub index: usize,
    /// `seg_` and 26 characters.
    pub segment_id: String,
    /// For people; unique in the model.
    pub name: String,
    /// Training rows.
    pub n: usize,
    /// Share of the training rows.
    pub share: f64,
    /// Median distance to the centre, prepared units.
    pub radius_p50: f64,
    /// 99 % quantile of the distance to the centre.
    pub radius_p99: f64,
}

/// The training population, for drift.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Minimum, deciles and maximum (11 values) of each numeric feature, raw units, missing values left out.
    pub feature_quantiles: Vec<(String, Vec<f64>)>,
    /// The shares of each numeric feature between its deciles, raw units.
    #[serde(default)]
    pub feature_bins: Vec<(String, Bins)>,
    /// The shares of each categorical feature's levels.
    #[serde(default)]
    pub level_shares: Vec<(String, Vec<(String, f64)>)>,
    /// The population standard deviation of each prepared column.
    #[serde(default)]
    pub deviations: Vec<f64>,
}

/// Cut points of the three RFM measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RfmCuts {
    /// Of recency.
    pub r: Cuts,
    /// Of frequency.
    pub f: Cuts,
    /// Of monetary value.
    pub m: Cuts,
}

/// Figures of the fit on all training rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelMetrics {
    /// Sum of squared distances to the nearest centre, prepared units.
    pub inertia: f64,
    /// `None` where not defined.
    pub silhouette: Option<Silhouette>,
    /// `None` where not defined.
    pub calinski_harabasz: Option<f64>,
    /// `None` where not defined.
    pub davies_bouldin: Option<f64>,
}

/// Why a text is not a model.
#[derive(Debug, thiserror::Error)]
pub enum ArtefactError {
    /// Another format, or another major version of it.
    #[error("the model has format `{found}`, expected `{FORMAT}`")]
    Format {
        /// What the text says.
        found: String,
    },
    /// Not JSON, or a key is missing or of another type.
    #[error("the model cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// Parts that do not fit together.
    #[error("the model contradicts itself: {0}")]
    Shape(String),
}

/// Where a row belongs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assignment {
    /// Index of the segment in [`Model::segments`].
    pub segment: usize,
    /// Distance to its centre, prepared units.
    pub distance: f64,
    /// The second nearest segment; `None` in a model of one.
    pub second: Option<usize>,
    /// Distance to the second nearest centre.
    pub second_distance: Option<f64>,
    /// 1 - distance / second distance: 0 on the border, 1 on the centre.
    pub confidence: f64,
    /// Farther out than almost all training rows of the segment.
    pub outlier: bool,
}

impl Model {
    /// The canonical text; equal models have equal bytes.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a model holds text, numbers and lists only")
    }

    /// The first 16 hexadecimal digits of the SHA-256 of the canonical text.
    pub fn version(&self) -> String {
        version_of(&self.to_json())
    }

    /// Reads a text; unknown keys are ignored.
    ///
    /// # Errors
    /// [`ArtefactError`] for another major format, a text that is not a model, or parts that do not fit.
    pub fn from_json(text: &str) -> Result<Self, ArtefactError> {
        #[derive(Deserialize)]
        struct Header {
            format: String,
        }
        let Header { format } = serde_json::from_str(text)?;
        if format != FORMAT {
            return Err(ArtefactError::Format { found: format });
        }
        let model: Self = serde_json::from_str(text)?;
        let (width, centres) = (model.features.width(), &model.assign.centres);
        if centres.is_empty() || centres.len() != model.segments.len() {
            let message = format!("{} centres for {} segments", centres.len(), model.segments.len());
            return Err(ArtefactError::Shape(message));
        }
        let cores = model.assign.cores.as_ref();
        let points = cores.map_or(&[][..], |cores| cores.points.as_slice());
        if let Some(odd) = centres.iter().chain(points).find(|point| point.len() != width) {
            let message = format!("a centre or core has {} values, the features make {width}", odd.len());
            return Err(ArtefactError::Shape(message));
        }
        let known = |segment: &usize| *segment < centres.len();
        if let Some(cores) = cores
            && !(cores.segments.len() == cores.points.len()
                && cores.segments.iter().all(known)
                && cores.noise.iter().all(known))
        {
            return Err(ArtefactError::Shape("cores belong to segments that there are not".to_owned()));
        }
        Ok(model)
    }

    /// The format a new model is written in.
    pub(super) fn format() -> String {
        FORMAT.to_owned()
    }
}

/// The version of a canonical text.
pub(super) fn version_of(json: &str) -> String {
    Sha256::digest(json.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The segment of one row of raw values, in the order of the model's features.
///
/// `None` when a feature's `drop_row` leaves the row out.
///
/// # Errors
/// The first [`PrepareError`] of the row; [`PrepareError::Predicates`] for a model of `rules`.
pub fn assign(model: &Model, row: &[Value<'_>]) -> Result<Option<Assignment>, PrepareError> {
    let Some(prepared) = model.features.row(row)? else { return Ok(None) };
    let segment = match model.assign.rule {
        RuleName::NearestCentre => None,
        RuleName::NearestCore => {
            model.assign.cores.as_ref().and_then(|cores| cores.segment(&prepared, model.assign.metric))
        }
        RuleName::RfmGrid => model.cell(row),
        RuleName::Rules => return Err(PrepareError::Predicates),
    };
    Ok(Some(assign_prepared(model, &prepared, segment)))
}

impl Cores {
    /// The segment of the nearest core, ties to the lower one; noise when it is too far.
    fn segment(&self, row: &[f64], metric: Metric) -> Option<usize> {
        let mut best = (f64::INFINITY, None);
        for (core, &segment) in self.points.iter().zip(&self.segments) {
            let distance = distance_measure(metric, row, core);
            if distance < best.0 {
                best = (distance, Some(segment));
            }
        }
        if best.0 <= within(metric, self.eps) { best.1 } else { self.noise }
    }
}

impl Model {
    /// The segment of a row's RFM cell; `None` when a measure is missing or training did not meet the cell.
    fn cell(&self, row: &[Value<'_>]) -> Option<usize> {
        let (cells, cuts) = (self.assign.cells.as_ref()?, self.rfm.as_ref()?);
        let measure = |part: usize| {
            let place = self.features.features().iter().position(|f| f.name() == cells.features[part])?;
            match row.get(place)? {
                Value::Number(value) => value.is_finite().then_some(*value),
                Value::Level(_) => None,
            }
        };
        let measures = measure(0).zip(measure(1)).zip(measure(2));
        let name = measures.map_or(rfm::INACTIVE, |((recency, frequency), monetary)| {
            rfm::cell(cells.grid, cuts.r.score(recency), cuts.f.score(frequency), cuts.m.score(monetary))
        });
        cells.names.iter().position(|known| known == name)
    }
}

/// The assignment of one prepared row: to `segment`, or to that of the nearest centre.
pub(super) fn assign_prepared(model: &Model, row: &[f64], segment: Option<usize>) -> Assignment {
    let centres = &model.assign.centres;
    let mut found = match segment {
        None => nearest_two(centres, row),
        Some(segment) => beside(centres, row, segment),
    };
    mark_outlier(&mut found, &model.segments);
    found
}

/// Whether the row lies farther out than almost all training rows of its segment.
pub(super) fn mark_outlier(found: &mut Assignment, segments: &[Segment]) {
    found.outlier = found.distance > OUTLIER * segments[found.segment].radius_p99;
}

/// A row of a segment that is not decided by centres: the second is the nearest other centre, and confidence
/// is 0 where that one is nearer.
pub(super) fn beside(centres: &[Vec<f64>], row: &[f64], segment: usize) -> Assignment {
    let distance = squared_distance(row, &centres[segment]).sqrt();
    let mut second: Option<(usize, f64)> = None;
    for (number, centre) in centres.iter().enumerate().filter(|(number, _)| *number != segment) {
        let other = squared_distance(row, centre).sqrt();
        if second.is_none_or(|(_, nearest)| other < nearest) {
            second = Some((number, other));
        }
    }
    let confidence = match second {
        None => 1.0,
        Some((_, 0.0)) => 0.0,
        Some((_, other)) => (1.0 - distance / other).max(0.0),
    };
    Assignment {
        segment,
        distance,
        second: second.map(|(number, _)| number),
        second_distance: second.map(|(_, other)| other),
        confidence,
        outlier: false,
    }
}

/// The two nearest centres, ties to the lower index; nothing is an outlier yet.
#[inline(always)]
pub(super) fn nearest_two(centres: &[Vec<f64>], row: &[f64]) -> Assignment {
    let (mut first, mut second) = ((f64::INFINITY, 0), (f64::INFINITY, 0));
    for (number, centre) in centres.iter().enumerate() {
        let distance = squared_distance(row, centre);
        if distance < first.0 {
            second = first;
            first = (distance, number);
        } else if distance < second.0 {
            second = (distance, number);
        }
    }
    let distance = first.0.sqrt();
    let second = (centres.len() > 1).then(|| (second.1, second.0.sqrt()));
    let confidence = match second {
        None => 1.0,
        Some((_, 0.0)) => 0.0,
        Some((_, second)) => 1.0 - distance / second,
    };
    Assignment {
        segment: first.1,
        distance,
        second: second.map(|(segment, _)| segment),
        second_distance: second.map(|(_, distance)| distance),
        confidence,
        outlier: false,
    }
}
