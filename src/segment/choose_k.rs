//! The choice of k: fits for a range, figures for each, a guard, and the rule that picks one.
//!
//! Owns the inertia curve that never rises, its knee, and the reasons a k is not eligible. The result is a
//! function of the points, the options and the seed.

use rayon::prelude::*;
use serde::Serialize;

use super::kmeans::{Centred, KMeansFit, KMeansOptions};
use super::matrix::Matrix;
use super::metrics::{calinski_harabasz, davies_bouldin};
use super::prepare::Warning;
use super::silhouette::{Silhouette, silhouette};
use super::spec::{Guard, KSpec, OnNoK, Select};

/// Fewest values of k on which a knee is looked for.
const KNEE_VALUES: usize = 5;
/// A difference curve that stays below this has no knee.
const FLAT: f64 = 0.05;

/// What was found for one k.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KFigures {
    /// Clusters asked for.
    pub k: usize,
    /// Sum of squared distances on the sample.
    pub inertia: f64,
    /// `None` where not defined.
    pub silhouette: Option<Silhouette>,
    /// `None` where not defined.
    pub calinski_harabasz: Option<f64>,
    /// `None` where not defined.
    pub davies_bouldin: Option<f64>,
    /// Share of the smallest cluster.
    pub smallest_share: f64,
    /// Share of the largest cluster.
    pub largest_share: f64,
    /// Why this k may not be chosen; empty when it may.
    pub refused: Vec<String>,
}

/// The k that was chosen and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KReport {
    /// Chosen.
    pub k: usize,
    /// The rule that chose it; `auto` when `elbow` found none.
    pub select: Select,
    /// The knee of the inertia curve, if it has one.
    pub elbow: Option<usize>,
    /// Rows the fits were made on.
    pub sample: usize,
    /// By rising k.
    pub figures: Vec<KFigures>,
}

/// No k satisfies the guard: each with its reasons.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("no k satisfies `guard`: {} (hint: widen `guard`, or `on_no_k: relax`)", .0.join("; "))]
pub struct NoEligibleK(pub Vec<String>);

/// The choice and the fit it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The fit on the sample for the chosen k.
    pub fit: KMeansFit,
    /// What was found for every k.
    pub report: KReport,
    /// What the author should know.
    pub warnings: Vec<Warning>,
}

/// Fits every k of the range on `sample` (rows drawn from `population` rows) and chooses one.
///
/// `spec.fixed` narrows the range to one k, which the guard then only warns of. The range's lower end is at
/// least 1 and its upper end at most the number of sample rows; the caller checks both.
///
/// # Errors
/// [`NoEligibleK`] when the guard refuses every k and `on_no_k` is `fail`.
pub fn choose_k(
    sample: &Matrix,
    population: usize,
    spec: &KSpec,
    options: &KMeansOptions,
) -> Result<Choice, NoEligibleK> {
    let range = spec.fixed.map_or(spec.min..=spec.max.min(sample.rows()), |k| k..=k);
    let fits = fits(sample, range.collect(), options);
    let figures: Vec<KFigures> =
        fits.par_iter().map(|(k, fit)| figures(sample, population, *k, fit, &spec.guard, options)).collect();
    let mut warnings = Vec::new();
    let mut eligible: Vec<&KFigures> = figures.iter().filter(|found| found.refused.is_empty()).collect();
    if eligible.is_empty() {
        let reasons = figures.iter().map(|found| format!("k={}: {}", found.k, found.refused.join(", ")));
        if spec.fixed.is_none() && spec.on_no_k == OnNoK::Fail {
            return Err(NoEligibleK(reasons.collect()));
        }
        let message = format!("no k satisfies `guard`: {}", reasons.collect::<Vec<_>>().join("; "));
        warnings.push(Warning { code: "guard_relaxed", message });
        eligible = figures.iter().collect();
    }
    let elbow = knee(&figures.iter().map(|found| (found.k as f64, found.inertia)).collect::<Vec<_>>())
        .map(|place| figures[place].k);
    let (k, select) = pick(spec, &eligible, elbow, &mut warnings);
    if let Some(elbow) = elbow.filter(|elbow| elbow.abs_diff(k) > 1 && spec.fixed.is_none()) {
        let message = format!("k = {k} was chosen, the elbow of the inertia curve is at {elbow}");
        warnings.push(Warning { code: "elbow_differs", message });
    }
    let fit = fits.into_iter().find(|(of, _)| *of == k).expect("k was picked from these fits").1;
    Ok(Choice { fit, report: KReport { k, select, elbow, sample: sample.rows(), figures }, warnings })
}

/// One fit per k. Each k has its own starts, and one that grows from the fit before, so inertia never rises.
fn fits(sample: &Matrix, range: Vec<usize>, options: &KMeansOptions) -> Vec<(usize, KMeansFit)> {
    let centred = Centred::new(sample);
    let with = |clusters: usize| KMeansOptions { clusters, ..options.clone() };
    let mut fits: Vec<(usize, KMeansFit)> =
        range.into_par_iter().map(|k| (k, centred.best_of_runs(&with(k)))).collect();
    for number in 1..fits.len() {
        let grown = centred.grown(&fits[number - 1].1, &with(fits[number].0));
        if grown.inertia < fits[number].1.inertia {
            fits[number].1 = grown;
        }
    }
    fits
}

fn figures(
    sample: &Matrix,
    population: usize,
    k: usize,
    fit: &KMeansFit,
    guard: &Guard,
    options: &KMeansOptions,
) -> KFigures {
    let mut sizes = vec![0_usize; fit.centres.len()];
    fit.labels.iter().for_each(|&label| sizes[label as usize] += 1);
    let share = |size: Option<&usize>| size.map_or(0.0, |&size| size as f64 / sample.rows() as f64);
    let (smallest_share, largest_share) = (share(sizes.iter().min()), share(sizes.iter().max()));
    let smallest_rows = smallest_share * population as f64;
    let mut refused = Vec::new();
    if fit.centres.len() < k {
        refused.push(format!("only {} distinct clusters", fit.centres.len()));
    }
    if smallest_share < guard.min_share {
        refused.push(format!("smallest share {smallest_share:.4} < {}", guard.min_share));
    }
    if smallest_rows < guard.min_size as f64 {
        refused.push(format!("smallest size {smallest_rows:.0} < {}", guard.min_size));
    }
    if largest_share > guard.max_share {
        refused.push(format!("largest share {largest_share:.4} > {}", guard.max_share));
    }
    KFigures {
        k,
        inertia: fit.inertia,
        silhouette: silhouette(sample, &fit.labels, options.seed).ok(),
        calinski_harabasz: calinski_harabasz(sample, &fit.labels).ok(),
        davies_bouldin: davies_bouldin(sample, &fit.labels).ok(),
        smallest_share,
        largest_share,
        refused,
    }
}

/// The k of the rule; the rule itself changes to `auto` when there is no elbow among the eligible.
fn pick(
    spec: &KSpec,
    eligible: &[&KFigures],
    elbow: Option<usize>,
    warnings: &mut Vec<Warning>,
) -> (usize, Select) {
    let highest = |value: &dyn Fn(&KFigures) -> Option<f64>| {
        let mut best = (f64::NEG_INFINITY, eligible[0].k);
        for found in eligible {
            if let Some(value) = value(found).filter(|value| *value > best.0) {
                best = (value, found.k);
            }
        }
        best.1
    };
    let by_silhouette = || highest(&|found| found.silhouette.map(|found| found.value));
    let auto = || {
        let best = by_silhouette();
        let best = eligible.iter().find(|found| found.k == best).and_then(|found| found.silhouette);
        let Some(best) = best else { return eligible[0].k };
        let near = |found: &&&KFigures| {
            found.silhouette.is_some_and(|found| found.value >= best.value - best.standard_error)
        };
        eligible.iter().find(near).map_or(eligible[0].k, |found| found.k)
    };
    match spec.select {
        _ if spec.fixed.is_some() => (eligible[0].k, Select::Fixed),
        Select::Auto | Select::Fixed => (auto(), Select::Auto),
        Select::Silhouette => (by_silhouette(), Select::Silhouette),
        Select::CalinskiHarabasz => (highest(&|found| found.calinski_harabasz), Select::CalinskiHarabasz),
        Select::DaviesBouldin => {
            (highest(&|found| found.davies_bouldin.map(|value| -value)), Select::DaviesBouldin)
        }
        Select::Elbow => match elbow.filter(|elbow| eligible.iter().any(|found| found.k == *elbow)) {
            Some(elbow) => (elbow, Select::Elbow),
            None => {
                let message = "the inertia curve has no elbow that satisfies `guard`; `auto` chose".into();
                warnings.push(Warning { code: "no_elbow", message });
                (auto(), Select::Auto)
            }
        },
    }
}

/// Kneedle on a falling convex curve of (x, y), x rising, sensitivity 1: the place of the knee.
///
/// `None` with fewer than five points or when the curve hardly bends.
pub fn knee(curve: &[(f64, f64)]) -> Option<usize> {
    if curve.len() < KNEE_VALUES {
        return None;
    }
    let last = curve.len() - 1;
    let bounds = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)))
    };
    let (low, high) = bounds(&mut curve.iter().map(|point| point.1));
    let (first_x, width) = (curve[0].0, curve[last].0 - curve[0].0);
    if high <= low || width <= 0.0 {
        return None;
    }
    let bend: Vec<f64> =
        curve.iter().map(|(x, y)| 1.0 - (y - low) / (high - low) - (x - first_x) / width).collect();
    let step = 1.0 / last as f64;
    let mut candidate: Option<usize> = None;
    let mut highest = 0;
    for place in 0..=last {
        if bend[place] > bend[highest] {
            highest = place;
        }
        let peak =
            place > 0 && place < last && bend[place] >= bend[place - 1] && bend[place] >= bend[place + 1];
        if peak {
            candidate = Some(place);
        } else if let Some(peak) = candidate.filter(|&peak| bend[place] < bend[peak] - step) {
            return (bend[peak] >= FLAT).then_some(peak);
        }
    }
    (bend[highest] >= FLAT).then_some(highest)
}
