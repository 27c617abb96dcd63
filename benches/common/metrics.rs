//! The operator's `/metrics`, read.

use anyhow::Context as _;

const PROBES: &str = "healthcheck_operator_probes_total";

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<(String, f64)>);

/// A histogram's buckets: upper bounds in seconds, and how many observations do not exceed them.
#[derive(Clone, Debug)]
pub struct Histogram(Vec<(f64, f64)>);

impl Metrics {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let samples = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line:?}"))?;
            anyhow::Ok((series.to_owned(), value.parse()?))
        });
        Ok(Self(samples.collect::<Result<_, _>>()?))
    }

    /// The sum over the series of `name` whose labels hold `label` (all of them for an empty one).
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let mine = |series: &str| {
            series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                && series.contains(label)
        };
        // A sum of nothing is -0.
        self.0.iter().filter(|(series, _)| mine(series)).map(|(_, value)| value).sum::<f64>() + 0.0
    }

    /// Probes that ended.
    pub fn probes(&self) -> f64 {
        self.sum(PROBES, "")
    }

    /// Those of them in which the target failed.
    pub fn failed(&self) -> f64 {
        self.sum(PROBES, "outcome=\"failure\"")
    }

    /// Those in which we could not look: our own lack, which says nothing of the target.
    pub fn local(&self) -> f64 {
        self.sum(PROBES, "outcome=\"local\"")
    }

    pub fn histogram(&self, name: &str) -> Histogram {
        let bucket = format!("{name}_bucket");
        let bound = |series: &str| -> Option<f64> {
            let text = series.strip_prefix(&bucket)?.split_once("le=\"")?.1.split_once('"')?.0;
            if text == "+Inf" { Some(f64::INFINITY) } else { text.parse().ok() }
        };
        let mut buckets: Vec<(f64, f64)> =
            self.0.iter().filter_map(|(series, count)| Some((bound(series)?, *count))).collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        Histogram(buckets)
    }
}

impl Histogram {
    /// What was observed after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |bound: f64| earlier.0.iter().find(|bucket| bucket.0 == bound).map_or(0.0, |bucket| bucket.1);
        Self(self.0.iter().map(|(bound, count)| (*bound, count - before(*bound))).collect())
    }

    /// The bound of the bucket that holds the percentile, in seconds: the true value is not above it.
    pub fn percentile(&self, percent: f64) -> f64 {
        let all = self.0.last().map_or(0.0, |bucket| bucket.1);
        let wanted = all * percent / 100.0;
        self.0.iter().find(|bucket| bucket.1 >= wanted).map_or(f64::NAN, |bucket| bucket.0)
    }

    /// The share of observations above `bound` seconds, a bucket's bound, in percent.
    pub fn above(&self, bound: f64) -> f64 {
        let all = self.0.last().map_or(0.0, |bucket| bucket.1);
        let below = self.0.iter().rfind(|bucket| bucket.0 <= bound * 1.000_001).map_or(0.0, |bucket| bucket.1);
        100.0 * (all - below) / all
    }
}
