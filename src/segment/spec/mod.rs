//! What authors may ask of a clustering: the keys `features`, `scale`, `algorithm`, `k`, `refresh` and `naming`.
//!
//! Owns the words, their defaults and their JSON schema. Knows nothing of files, tables or runs.

mod algorithm;
mod choice;
mod whole;

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use algorithm::{
    Algorithm, AlgorithmName, Cut, Eps, Grid, Init, Linkage, Metric, OnLarge, Precision, Rule,
};
pub use choice::{Guard, K, KSpec, OnNoK, Select};
use whole::{whole, whole_schema};

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
    /// What a later run keeps of the one before.
    #[serde(default)]
    pub refresh: Refresh,
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

/// What a later run keeps of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Refresh {
    /// Where k-means starts when there is a model already.
    pub init: Start,
    /// What is fitted beside a warm start.
    pub challenger: Challenger,
    /// The challenger replaces the warm fit only if its inertia is lower by more than this share. Default 0.02.
    pub switch_if_inertia_gain: f64,
}

/// Where k-means starts when there is a model already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// From the centres of the model before: customers whose data did not change seldom move.
    #[default]
    Warm,
    /// As if there were none.
    Cold,
}

/// What is fitted beside a warm start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Challenger {
    /// A fit that knows nothing of the model before.
    #[default]
    Cold,
    /// Nothing.
    None,
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

impl Default for Refresh {
    fn default() -> Self {
        Self { init: Start::Warm, challenger: Challenger::Cold, switch_if_inertia_gain: 0.02 }
    }
}

impl ClusterSpec {
    /// What is wrong with the settings of `algorithm`, `k` and `refresh`, all at once; for features see
    /// [`Preparation::fit`](super::prepare::Preparation::fit).
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.algorithm.problems();
        problems.extend(self.k.0.problems());
        let gain = self.refresh.switch_if_inertia_gain;
        if !(0.0..=1.0).contains(&gain) {
            problems
                .push(format!("`refresh.switch_if_inertia_gain` is {gain}, expected a share from 0 to 1"));
        }
        problems
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
