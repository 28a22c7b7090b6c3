//! The key `algorithm`: which one, and its settings.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::whole::{whole, whole_or_nothing, whole_schema, whole_seed};

/// The algorithm and its settings.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Algorithm {
    /// Which algorithm. Default `kmeans`.
    pub name: AlgorithmName,
    /// k-means: independent starts; the best is kept. Default 10.
    #[serde(deserialize_with = "whole")]
    #[schemars(schema_with = "whole_schema")]
    pub n_init: usize,
    /// k-means: how starts are found.
    pub init: Init,
    /// k-means: most iterations per start; default 300, for `minibatch_kmeans` passes over the rows.
    #[serde(deserialize_with = "whole")]
    #[schemars(schema_with = "whole_schema")]
    pub max_iter: usize,
    /// k-means: stop when centres move less than this, relative to the mean variance. Default 0.0001.
    pub tol: f64,
    /// k-means: the precision of points while iterating; sums and final distances are always `f64`.
    pub precision: Precision,
    /// `minibatch_kmeans`: rows per batch. Default 16,384.
    #[serde(deserialize_with = "whole")]
    #[schemars(schema_with = "whole_schema")]
    pub batch: usize,
    /// `hierarchical`: how far two groups are apart. Default `ward`.
    pub linkage: Linkage,
    /// `hierarchical`: where the tree is cut; default where `k` says.
    pub cut: Option<Cut>,
    /// `hierarchical`: rows from which `on_large` decides. Default 20,000.
    #[serde(deserialize_with = "whole")]
    #[schemars(schema_with = "whole_schema")]
    pub max_rows: usize,
    /// `hierarchical`: what to do with more than `max_rows` rows.
    pub on_large: OnLarge,
    /// `dbscan`: how near neighbours are, prepared units. Default `auto`.
    #[schemars(schema_with = "eps_schema")]
    pub eps: Eps,
    /// `dbscan`: rows within `eps`, the row itself included, that make a row a core; default twice the
    /// prepared columns, at least 5.
    #[serde(deserialize_with = "whole_or_nothing")]
    #[schemars(schema_with = "whole_schema")]
    pub min_samples: Option<usize>,
    /// `dbscan`: how distances are measured.
    pub metric: Metric,
    /// `rfm`: which grid of names. Default `rfm`.
    pub grid: Grid,
    /// `rules`: the segments, the first whose predicate holds; rows without one are `Other`.
    pub rules: Vec<Rule>,
    /// Key of all draws: the same seed and rows give the same segments, bit for bit. Default 42.
    #[serde(deserialize_with = "whole_seed")]
    #[schemars(schema_with = "whole_schema")]
    pub seed: u64,
}

/// The algorithms there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlgorithmName {
    /// k-means: Lloyd's iterations.
    #[default]
    Kmeans,
    /// k-means on batches of rows, for matrices that are read too slowly in whole.
    MinibatchKmeans,
    /// A tree of merges, cut; new rows go to the nearest centre.
    Hierarchical,
    /// Dense regions; rows outside are the segment `Noise`.
    Dbscan,
    /// The grid of recency and frequency scores.
    Rfm,
    /// Predicates written by hand.
    Rules,
}

impl fmt::Display for AlgorithmName {
    /// As authors write it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kmeans => "kmeans",
            Self::MinibatchKmeans => "minibatch_kmeans",
            Self::Hierarchical => "hierarchical",
            Self::Dbscan => "dbscan",
            Self::Rfm => "rfm",
            Self::Rules => "rules",
        })
    }
}

/// How k-means starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum Init {
    /// Greedy k-means++.
    #[default]
    #[serde(rename = "kmeans++")]
    KmeansPlusPlus,
    /// k-means||: a few rounds of many candidates.
    #[serde(rename = "kmeans_parallel")]
    KmeansParallel,
    /// Rows drawn at random.
    #[serde(rename = "random")]
    Random,
}

/// The precision of points while k-means iterates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Seven digits: half the memory, up to twice as fast.
    #[default]
    F32,
    /// Sixteen digits.
    F64,
}

/// How far two groups of rows are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Linkage {
    /// By how much merging them raises the variance.
    #[default]
    Ward,
    /// The mean distance of their rows.
    Average,
    /// The distance of their farthest rows.
    Complete,
    /// The distance of their nearest rows.
    Single,
    /// The distance of their centres.
    Centroid,
}

/// Where a tree is cut.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// Into this many segments.
    #[serde(default, deserialize_with = "whole_or_nothing")]
    #[schemars(schema_with = "whole_schema")]
    pub k: Option<usize>,
    /// Between nodes farther apart than this.
    #[serde(default)]
    pub height: Option<f64>,
}

/// What a hierarchical clustering does with more rows than its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLarge {
    /// k-means to 2,000 centres, then Ward's tree of these, each as heavy as its rows; with other linkages
    /// as `sample`.
    #[default]
    Microclusters,
    /// The tree of `max_rows` rows drawn by key.
    Sample,
    /// Refuse.
    Error,
}

/// How near neighbours are.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Eps {
    /// The knee of the distances to the `min_samples`-th neighbour.
    #[default]
    Auto,
    /// This distance, included.
    Within(f64),
}

/// How DBSCAN measures distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The straight line.
    #[default]
    Euclidean,
    /// The sum over columns.
    Manhattan,
}

/// Which names RFM scores get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grid {
    /// Ten names by recency and frequency.
    #[default]
    Rfm,
    /// Eleven names by recency and the mean of frequency and money, `Lost` among them.
    Rfm11,
}

/// A segment made by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The segment's name.
    pub name: String,
    /// A SQL predicate over the columns of `from`.
    pub when: String,
}

impl Default for Algorithm {
    fn default() -> Self {
        Self {
            name: AlgorithmName::Kmeans,
            n_init: 10,
            init: Init::KmeansPlusPlus,
            max_iter: 300,
            tol: 1e-4,
            precision: Precision::F32,
            batch: 16_384,
            linkage: Linkage::Ward,
            cut: None,
            max_rows: 20_000,
            on_large: OnLarge::Microclusters,
            eps: Eps::Auto,
            min_samples: None,
            metric: Metric::Euclidean,
            grid: Grid::Rfm,
            rules: Vec::new(),
            seed: 42,
        }
    }
}

impl Algorithm {
    /// What is wrong with the settings, all at once.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut refuse = |wrong: bool, message: String| {
            if wrong {
                problems.push(message);
            }
        };
        let counts = [
            ("n_init", self.n_init),
            ("max_iter", self.max_iter),
            ("batch", self.batch),
            ("max_rows", self.max_rows),
            ("min_samples", self.min_samples.unwrap_or(1)),
        ];
        for (key, count) in counts {
            refuse(count == 0, format!("`algorithm.{key}` is 0, expected at least 1"));
        }
        let tol = self.tol;
        refuse(!tol.is_finite() || tol < 0.0, format!("`algorithm.tol` is {tol}, expected 0 or more"));
        if let Eps::Within(eps) = self.eps {
            let wrong = !eps.is_finite() || eps <= 0.0;
            refuse(wrong, format!("`algorithm.eps` is {eps}, expected a number above 0 or `auto`"));
        }
        if let Some(Cut { k, height }) = self.cut {
            let both = "`algorithm.cut` takes `k` or `height`, expected one of them";
            refuse(k.is_some() == height.is_some(), both.into());
            refuse(k == Some(0), "`algorithm.cut.k` is 0, expected at least 1".into());
            let wrong = height.is_some_and(|height| !height.is_finite() || height < 0.0);
            refuse(wrong, "`algorithm.cut.height` is below 0 or no number, expected 0 or more".into());
        }
        let rules = self.name == AlgorithmName::Rules;
        refuse(
            rules && self.rules.is_empty(),
            "`algorithm.rules` is empty, expected at least one `{name, when}`".into(),
        );
        refuse(
            !rules && !self.rules.is_empty(),
            "`algorithm.rules` belongs to `name: rules`, expected that name or no rules".into(),
        );
        problems
    }
}

impl<'de> Deserialize<'de> for Eps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl Visitor<'_> for Entry {
            type Value = Eps;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a distance or `auto`")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Eps, E> {
                Ok(Eps::Within(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Eps, E> {
                Ok(Eps::Within(value as f64))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Eps, E> {
                Ok(Eps::Within(value as f64))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Eps, E> {
                if text.trim() == "auto" {
                    return Ok(Eps::Auto);
                }
                let wrong = |_| E::invalid_value(serde::de::Unexpected::Str(text), &self);
                text.trim().parse().map(Eps::Within).map_err(wrong)
            }
        }
        deserializer.deserialize_any(Entry)
    }
}

fn eps_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]})
}
