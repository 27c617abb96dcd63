//! Medians and percentiles.

/// The middle of `values`; of an even number, the mean of the two in the middle; NaN of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let sorted = sorted(values);
    let at = |rank: usize| sorted.get(rank).copied().unwrap_or(f64::NAN);
    f64::midpoint(at(sorted.len().saturating_sub(1) / 2), at(sorted.len() / 2))
}

/// Of what a table tells medians, or sums.
pub fn over(what: &str, rounds: usize) -> String {
    if rounds == 1 { "one round".to_owned() } else { format!("{what} of {rounds} rounds") }
}

/// Each of ours over that of the same round: the machine's pace changes with the hour.
pub fn ratios(ours: &[f64], its: &[f64]) -> Vec<f64> {
    ours.iter().zip(its).map(|(ours, its)| ours / its).collect()
}

/// The values in order, for [`percentile`].
pub fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The smallest of the sorted values that at least `percent` of them do not exceed; NaN of none.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}
