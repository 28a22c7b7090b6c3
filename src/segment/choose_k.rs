//! The choice of k: fits for a range, figures for each, a guard, and the rule that picks one.
//!
//! Owns the inertia curve that never rises, its knee, and the reasons a k is not eligible. The result is a
//! function of the points, the options and the seed.

use rayon::prelude::*;
use serde::Serialize;

use super::gap::{Gap, gap_statistic};
use super::kmeans::{Centred, KMeansFit, KMeansOptions};
use super::matrix::Matrix;
use super::metrics::{calinski_harabasz, davies_bouldin};
use super::points::Real;
use super::prepare::Warning;
use super::silhouette::{Silhouette, silhouette_by_label};
use super::spec::{Guard, KSpec, OnNoK, Precision, Select};
use super::vectors::Kernel;

/// Fewest values of k on which a knee is looked for.
const KNEE_VALUES: usize = 5;
/// How many times steeper the inertia falls before an elbow than after it, in logarithms of k and inertia.
const SHARP: f64 = 1.75;
/// A difference curve that stays below this has no knee.
const FLAT: f64 = 0.05;

/// How fits are judged: the key of the draws, and the instructions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judge {
    pub(super) seed: u64,
    pub(super) kernel: Kernel,
}

impl From<&KMeansOptions> for Judge {
    fn from(options: &KMeansOptions) -> Self {
        Self { seed: options.seed, kernel: options.kernel }
    }
}

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
    /// The gap statistic, where it was asked for.
    pub gap: Option<Gap>,
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
    let range: Vec<usize> = spec.range(sample.rows()).collect();
    let gaps = if spec.fixed.is_none() && spec.select == Select::Gap {
        gap_statistic(sample, &range, options)
    } else {
        None
    };
    choose(sample, population, spec, fits(sample, range, options), gaps.as_deref(), options.into())
}

impl KSpec {
    /// The values of k that are tried on `rows` rows.
    pub(super) fn range(&self, rows: usize) -> std::ops::RangeInclusive<usize> {
        self.fixed.map_or(self.min..=self.max.min(rows), |k| k..=k)
    }
}

/// Chooses among fits that there are, by rising k; at least one.
///
/// # Errors
/// As [`choose_k`].
pub(super) fn choose(
    sample: &Matrix,
    population: usize,
    spec: &KSpec,
    fits: Vec<(usize, KMeansFit)>,
    gaps: Option<&[Gap]>,
    judge: Judge,
) -> Result<Choice, NoEligibleK> {
    let mut figures: Vec<KFigures> =
        fits.par_iter().map(|(k, fit)| figures(sample, population, *k, fit, &spec.guard, judge)).collect();
    figures.iter_mut().zip(gaps.unwrap_or_default()).for_each(|(found, gap)| found.gap = Some(*gap));
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
    let elbow = elbow(&figures);
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
    match options.precision {
        Precision::F32 => fits_among(&Centred::<f32>::new(sample, options), range, options),
        Precision::F64 => fits_among(&Centred::<f64>::new(sample, options), range, options),
    }
}

fn fits_among<T: Real>(
    centred: &Centred<'_, T>,
    range: Vec<usize>,
    options: &KMeansOptions,
) -> Vec<(usize, KMeansFit)> {
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

pub(super) fn figures(
    sample: &Matrix,
    population: usize,
    k: usize,
    fit: &KMeansFit,
    guard: &Guard,
    judge: Judge,
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
        silhouette: silhouette_by_label(sample, &fit.labels, judge.seed, judge.kernel)
            .ok()
            .map(|(mean, _)| mean),
        calinski_harabasz: calinski_harabasz(sample, &fit.labels).ok(),
        davies_bouldin: davies_bouldin(sample, &fit.labels).ok(),
        gap: None,
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
        Select::Gap => match first_sufficient_gap(eligible) {
            Some(k) => (k, Select::Gap),
            None => {
                let message = "the gap statistic keeps rising within the range; `auto` chose".into();
                warnings.push(Warning { code: "no_gap", message });
                (auto(), Select::Auto)
            }
        },
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

/// The k at which the inertia curve bends, if it bends more than rows without clusters make it.
///
/// Evenly spread rows have a smooth curve too, a power of k, on which Kneedle finds a knee in the middle of any
/// range. In logarithms such a curve is straight; at a true elbow the fall before is much steeper than after.
fn elbow(figures: &[KFigures]) -> Option<usize> {
    let place = knee(&figures.iter().map(|found| (found.k as f64, found.inertia)).collect::<Vec<_>>())?;
    let slope = |from: &KFigures, to: &KFigures| {
        (from.inertia / to.inertia).ln() / (to.k as f64 / from.k as f64).ln()
    };
    let (before, at, after) = (place.checked_sub(1)?, &figures[place], figures.get(place + 1)?);
    let sharp = at.inertia == 0.0 || slope(&figures[before], at) >= SHARP * slope(at, after);
    sharp.then_some(at.k)
}

/// The smallest k whose gap is at least that of the next k less its error.
fn first_sufficient_gap(eligible: &[&KFigures]) -> Option<usize> {
    let sufficient = |pair: &&[&KFigures]| {
        let (own, next) = (pair[0].gap.as_ref(), pair[1].gap.as_ref());
        own.zip(next).is_some_and(|(own, next)| own.value >= next.value - next.error)
    };
    eligible.windows(2).find(sufficient).map(|pair| pair[0].k)
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
