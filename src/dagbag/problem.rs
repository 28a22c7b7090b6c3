//! What is wrong with a DAG file, in words for the person who wrote it.

use std::fmt;

use serde::Serialize;

/// A place in a file, both from 1; the column counts characters. 0 is no particular place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// One thing wrong. Printed as `error: file:line:column: what, expected …` and a `hint:` line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file, as it was named to us; empty for what stands in no file (given parameters).
    pub file: String,
    /// Where in it.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong: lower case, no full stop, backticks round what the author wrote.
    pub what: String,
    /// What was expected, if `what` does not say so.
    pub expected: Option<String>,
    /// A way out, if one is known.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem at `place`; the file is filled in by the reader of the file.
    #[must_use]
    pub fn at(place: Place, what: impl Into<String>) -> Self {
        Self { file: String::new(), place, what: what.into(), expected: None, hint: None }
    }

    /// With what was expected.
    #[must_use]
    pub fn expected(self, expected: impl Into<String>) -> Self {
        Self { expected: Some(expected.into()), ..self }
    }

    /// With a way out.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// With a way out, if there is one.
    #[must_use]
    pub fn maybe_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("error: ")?;
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if self.place != Place::default() {
                write!(f, ":{}:{}", self.place.line, self.place.column)?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.what)?;
        if let Some(expected) = &self.expected {
            write!(f, ", expected {expected}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// `did you mean …?` with the nearest of `names`, if one is near enough to be a slip of the pen.
pub(super) fn did_you_mean<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, names).map(|name| format!("did you mean `{name}`?"))
}

/// The nearest of `names`; of several, the first in alphabetical order.
pub(super) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    let slips = (written.chars().count() / 3).clamp(1, 3);
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= slips)
        .min()
        .map(|(_, name)| name)
}

/// `a`, `b` and `c` with backticks, at most twelve of them.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const NAMES_MAX: usize = 12;
    let all: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    if all.len() > NAMES_MAX {
        return format!("{} or {} others", all[..NAMES_MAX].join(", "), all.len() - NAMES_MAX);
    }
    match all.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}
