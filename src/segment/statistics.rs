//! Plain statistics of one column: quantiles, moments, modes, correlation. Values are finite.

/// The quantile `share` in [0, 1] by linear interpolation (type 7); `sorted` rises and is not empty.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let lower = position.floor() as usize;
    let upper = (lower + 1).min(sorted.len() - 1);
    let (below, above, part) = (sorted[lower], sorted[upper], position - lower as f64);
    // From the nearer end, so that equal ends give exactly their value.
    if part < 0.5 { below + (above - below) * part } else { above - (above - below) * (1.0 - part) }
}

/// A copy in rising order.
pub(super) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// The arithmetic mean; `values` is not empty.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The population standard deviation.
pub(super) fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

/// Skewness (third standardised moment, population); 0 for a constant column.
pub(super) fn skewness(values: &[f64]) -> f64 {
    let (mean, deviation) = (mean(values), deviation(values));
    if deviation <= f64::EPSILON * mean.abs() {
        return 0.0;
    }
    values.iter().map(|value| ((value - mean) / deviation).powi(3)).sum::<f64>() / values.len() as f64
}

/// The most frequent value, the smallest when equal; `sorted` is not empty.
pub(super) fn mode(sorted: &[f64]) -> f64 {
    let mut best = (0, sorted[0]);
    for group in sorted.chunk_by(|left, right| left == right) {
        if group.len() > best.0 {
            best = (group.len(), group[0]);
        }
    }
    best.1
}

/// Pearson's r of two columns of one length; 0 when one is constant.
pub(super) fn correlation(left: &[f64], right: &[f64]) -> f64 {
    let (left_mean, right_mean) = (mean(left), mean(right));
    let (mut both, mut left_square, mut right_square) = (0.0, 0.0, 0.0);
    for (left, right) in left.iter().zip(right) {
        let (left, right) = (left - left_mean, right - right_mean);
        both += left * right;
        left_square += left * left;
        right_square += right * right;
    }
    let scale = (left_square * right_square).sqrt();
    if scale == 0.0 { 0.0 } else { both / scale }
}
