//! What authors may ask of a clustering: the keys `features`, `scale`, `algorithm`, `k` and `naming`.
//!
//! Owns the words, their defaults and their JSON schema. Knows nothing of files, tables or runs.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Everything a clustering is configured by.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// What customers are compared by.
    pub features: Vec<Feature>,
    /// Scaling of features that say nothing themselves.
    #[serde(default)]
    pub scale: Scale,
    /// The algorithm and its settings.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How many segments.
    #[serde(default)]
    pub k: K,
    /// How segments get their names.
    #[serde(default)]
    pub naming: Naming,
}

/// One feature: a column's name alone, or a mapping with its preparation.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature(pub FeatureSpec);

/// A column and how it is prepared: imputed, transformed, clipped, scaled, weighted, in this order.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureSpec {
    /// The column.
    pub name: String,
    /// `numeric` or `categorical`; default is what the column is.
    #[serde(default, rename = "type")]
    pub kind: Option<FeatureKind>,
    /// What to put where a value is missing; default the median.
    #[serde(default)]
    pub impute: Impute,
    /// Applied to the imputed value.
    #[serde(default)]
    pub transform: Transform,
    /// Quantiles of the transformed values to which values are clipped.
    #[serde(default)]
    pub clip: Option<Clip>,
    /// Overrides the task's `scale`.
    #[serde(default)]
    pub scale: Option<Scale>,
    /// Keep values outside the training range at its ends (with `minmax`).
    #[serde(default)]
    pub clamp: bool,
    /// Multiplies the scaled values; default 1.
    #[serde(default = "one")]
    pub weight: f64,
    /// Most levels of a categorical feature that get a column of their own; default 20.
    #[serde(default = "twenty", deserialize_with = "whole")]
    #[schemars(schema_with = "whole_schema")]
    pub max_levels: usize,
    /// Largest share of rows in which the value may be missing; default 0.5.
    #[serde(default = "half")]
    pub max_missing: f64,
    /// Its part in an RFM grid; default is the part the name begins with, such as `recency_days`.
    #[serde(default)]
    pub role: Option<Role>,
    /// Word for segments far below the population, such as `Low spend`.
    #[serde(default)]
    pub low_word: Option<String>,
    /// Word for segments far above the population, such as `High spend`.
    #[serde(default)]
    pub high_word: Option<String>,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// Numbers.
    Numeric,
    /// Levels without order.
    Categorical,
}

/// What stands for a missing value.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Impute {
    /// How the value is found.
    #[serde(default)]
    pub strategy: Strategy,
    /// The value of `constant`.
    #[serde(default)]
    pub value: Option<f64>,
    /// Add a column `<name>__missing` of 0 and 1.
    #[serde(default)]
    pub indicator: bool,
}

/// How a missing value is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The middle value; the mean of the two middle ones when the count is even.
    #[default]
    Median,
    /// The mean.
    Mean,
    /// The most frequent value, the smallest when equal.
    Mode,
    /// The given `value`.
    Constant,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// Leave the row out: it gets no segment.
    DropRow,
    /// Refuse.
    Error,
}

/// A function applied to every value of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// As given.
    #[default]
    None,
    /// ln(1 + x); negative values are refused.
    Log1p,
    /// sign(x) ln(1 + abs(x)).
    SignedLog1p,
    /// The square root; negative values are refused.
    Sqrt,
}

/// Quantiles, by linear interpolation.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    /// From 0 to 1; default 0.
    #[serde(default)]
    pub lower: f64,
    /// From 0 to 1; default 1.
    #[serde(default = "one")]
    pub upper: f64,
}

/// What makes features comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// (x - min) / (max - min).
    #[default]
    Minmax,
    /// (x - mean) / population standard deviation.
    Standard,
    /// (x - median) / (75 % quantile - 25 % quantile).
    Robust,
    /// As given.
    None,
}

/// A feature's part in an RFM grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Days since the last order: less is better.
    Recency,
    /// Number of orders.
    Frequency,
    /// Money spent.
    Monetary,
}

/// The algorithm and its settings.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Algorithm {
    /// `kmeans`.
    pub name: AlgorithmName,
    /// Independent starts; the best is kept. Default 10.
    #[serde(deserialize_with = "whole")]
    #[schemars(schema_with = "whole_schema")]
    pub n_init: usize,
    /// Most iterations per start. Default 300.
    #[serde(deserialize_with = "whole")]
    #[schemars(schema_with = "whole_schema")]
    pub max_iter: usize,
    /// Stop when centres move less than this, relative to the mean variance. Default 0.0001.
    pub tol: f64,
    /// Key of all draws: the same seed and rows give the same segments, bit for bit. Default 42.
    #[serde(deserialize_with = "whole_seed")]
    #[schemars(schema_with = "whole_schema")]
    pub seed: u64,
}

/// The algorithms there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlgorithmName {
    /// k-means with k-means++ starts.
    #[default]
    Kmeans,
}

/// How many segments: a number, or a range and how to choose from it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct K(pub KSpec);

/// The range of k and how to choose from it.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KSpec {
    /// The rule of choice.
    pub select: Select,
    /// Fewest segments tried. Default 3.
    #[serde(deserialize_with = "whole")]
    #[schemars(schema_with = "whole_schema")]
    pub min: usize,
    /// Most segments tried. Default 10.
    #[serde(deserialize_with = "whole")]
    #[schemars(schema_with = "whole_schema")]
    pub max: usize,
    /// The number itself; implies `select: fixed`.
    #[serde(deserialize_with = "whole_or_nothing")]
    #[schemars(schema_with = "whole_schema")]
    pub fixed: Option<usize>,
    /// What a choice must satisfy to be eligible.
    pub guard: Guard,
    /// What to do when no k satisfies the guard.
    pub on_no_k: OnNoK,
}

/// The rule by which k is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The smallest k whose silhouette is within one standard error of the best.
    #[default]
    Auto,
    /// The highest silhouette.
    Silhouette,
    /// The knee of the inertia curve.
    Elbow,
    /// The highest Calinski-Harabasz index.
    CalinskiHarabasz,
    /// The lowest Davies-Bouldin index.
    DaviesBouldin,
    /// The number given as `fixed`.
    Fixed,
}

/// Limits that keep segments usable.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Smallest share of a segment. Default 0.02.
    pub min_share: f64,
    /// Fewest rows of a segment, counted in all rows. Default 1.
    #[serde(deserialize_with = "whole")]
    #[schemars(schema_with = "whole_schema")]
    pub min_size: usize,
    /// Largest share of a segment. Default 0.7.
    pub max_share: f64,
}

/// What to do when no k satisfies the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnNoK {
    /// Refuse, with the reasons.
    #[default]
    Fail,
    /// Choose as if there were no guard, and warn.
    Relax,
}

/// How segments get their names.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Naming {
    /// Where names come from.
    pub mode: NamingMode,
    /// Names by segment id; they win.
    pub overrides: BTreeMap<String, String>,
}

/// Where names come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NamingMode {
    /// From the centres: the RFM grid when its three parts are declared, else the strongest features.
    #[default]
    Centres,
    /// `Segment 1`, `Segment 2`, … by falling size.
    Numbers,
}

impl Default for Algorithm {
    fn default() -> Self {
        Self { name: AlgorithmName::Kmeans, n_init: 10, max_iter: 300, tol: 1e-4, seed: 42 }
    }
}

impl Default for KSpec {
    fn default() -> Self {
        let guard = Guard::default();
        Self { select: Select::Auto, min: 3, max: 10, fixed: None, guard, on_no_k: OnNoK::Fail }
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self { min_share: 0.02, min_size: 1, max_share: 0.70 }
    }
}

impl FeatureSpec {
    /// The column `name` with the shipped defaults.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: None,
            impute: Impute::default(),
            transform: Transform::None,
            clip: None,
            scale: None,
            clamp: false,
            weight: 1.0,
            max_levels: 20,
            max_missing: 0.5,
            role: None,
            low_word: None,
            high_word: None,
        }
    }

    /// The declared part in an RFM grid, or the one the name begins with.
    pub fn role(&self) -> Option<Role> {
        let by_name =
            [("recency", Role::Recency), ("frequency", Role::Frequency), ("monetary", Role::Monetary)];
        let named = |(word, _): &&(&str, Role)| self.name.starts_with(word);
        self.role.or_else(|| by_name.iter().find(named).map(|(_, role)| *role))
    }
}

fn one() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

fn twenty() -> usize {
    20
}

/// A whole number, or one that a template rendered to text.
fn whole_seed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Whole;
    impl Visitor<'_> for Whole {
        type Value = u64;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a whole number from 0")
        }

        fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
            Ok(value)
        }

        fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
            u64::try_from(value).map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(value), &self))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            text.trim().parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_any(Whole)
}

fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let value = whole_seed(deserializer)?;
    usize::try_from(value).map_err(|_| D::Error::custom(format!("`{value}` is too large a count")))
}

fn whole_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    whole(deserializer).map(Some)
}

fn whole_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 0})
}

impl<'de> Deserialize<'de> for Feature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = Feature;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a column's name or a mapping with `name`")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Feature, E> {
                Ok(Feature(FeatureSpec::named(name)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Feature, A::Error> {
                FeatureSpec::deserialize(MapAccessDeserializer::new(map)).map(Feature)
            }
        }
        deserializer.deserialize_any(Entry)
    }
}

impl JsonSchema for Feature {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Feature".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string"}, generator.subschema_for::<FeatureSpec>()]})
    }
}

impl<'de> Deserialize<'de> for K {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = K;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number of segments or a mapping with `select`, `min` and `max`")
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<K, E> {
                let fixed = usize::try_from(value).map_err(E::custom)?;
                Ok(K(KSpec { fixed: Some(fixed), select: Select::Fixed, ..KSpec::default() }))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<K, E> {
                let value = u64::try_from(value)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(value), &self))?;
                self.visit_u64(value)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<K, E> {
                let value = text.trim().parse();
                let wrong = |_| E::invalid_value(serde::de::Unexpected::Str(text), &self);
                value.map_err(wrong).and_then(|value| Entry.visit_u64(value))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<K, A::Error> {
                KSpec::deserialize(MapAccessDeserializer::new(map)).map(K)
            }
        }
        deserializer.deserialize_any(Entry)
    }
}

impl JsonSchema for K {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "K".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mapping = generator.subschema_for::<KSpec>();
        json_schema!({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}, mapping]})
    }
}
