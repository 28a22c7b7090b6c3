//! The key `k`: how many segments, and what a choice must satisfy.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::whole::{whole, whole_or_nothing, whole_schema};

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
    /// The gap statistic: the smallest k whose gap reaches that of the next, less its error.
    Gap,
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

impl KSpec {
    /// What is wrong with the settings, all at once.
    pub(super) fn problems(&self) -> Vec<String> {
        let guard = &self.guard;
        let mut problems = Vec::new();
        let mut refuse = |wrong: bool, message: String| {
            if wrong {
                problems.push(message);
            }
        };
        refuse(self.fixed == Some(0), "`k.fixed` is 0, expected at least 1".into());
        refuse(
            self.select == Select::Fixed && self.fixed.is_none(),
            "`k.select` is `fixed`, expected the number as `k.fixed`".into(),
        );
        refuse(self.fixed.is_none() && self.min == 0, "`k.min` is 0, expected at least 1".into());
        refuse(
            self.fixed.is_none() && self.min > self.max,
            format!("`k.min` is {} and `k.max` is {}, expected min <= max", self.min, self.max),
        );
        for (key, share) in [("min_share", guard.min_share), ("max_share", guard.max_share)] {
            let wrong = !(0.0..=1.0).contains(&share);
            refuse(wrong, format!("`k.guard.{key}` is {share}, expected a share from 0 to 1"));
        }
        problems
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
